//! What the processes of a group hold and use, from /proc.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What all processes of a group hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) processes: usize,
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
    /// Bytes of anonymous memory, that is stacks and heap. Pages of the binary are left out: they are shared with
    /// whatever other test runs it.
    pub(crate) memory: u64,
    /// Processor time of the threads now alive.
    pub(crate) cpu: Duration,
}

/// The processes of a group that are not zombies, by their numbers. Whoever lost a parent still counts.
pub(crate) fn members(group: i32) -> Vec<i32> {
    let numbers = names_in(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok());
    let mut members: Vec<i32> = numbers.filter(|&pid| is_member(pid, group)).collect();
    members.sort_unstable();
    members
}

/// The server's end of a client's connection, called as in /proc: `socket:[123]`. `None` until the client is accepted.
pub(crate) fn accepted_socket(server: SocketAddr, client: SocketAddr) -> Option<String> {
    // Of the thread, which may be in another network namespace than the rest of this process.
    let table = read("/proc/thread-self/net/tcp");
    let ends_in = |field: &str, address: SocketAddr| field.ends_with(&format!(":{:04X}", address.port()));
    let inode = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (ends_in(fields.get(1)?, server) && ends_in(fields.get(2)?, client)).then_some(*fields.get(9)?)
    });
    inode.filter(|&inode| inode != "0").map(|inode| format!("socket:[{inode}]"))
}

/// Who started a process, or took it over.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    stat(&format!("/proc/{pid}")).split(' ').nth(1)?.parse().ok()
}

/// Those whom a process has started or taken over.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let numbers = names_in(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok());
    numbers.filter(|&other| parent(other) == Some(pid)).collect()
}

/// The file that a process runs.
pub(crate) fn binary(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// Adds up what the members of `group` hold. A process that ends meanwhile counts as far as it was seen.
pub(crate) fn usage(group: i32) -> Usage {
    let mut usage = Usage::default();
    for pid in members(group) {
        let process = Path::new("/proc").join(pid.to_string());
        let tasks = names_in(&process.join("task"));
        usage.processes += 1;
        usage.threads += tasks.len();
        usage.descriptors += names_in(&process.join("fd")).len();
        usage.memory += anonymous_memory(pid);
        usage.cpu += tasks.iter().map(|task| cpu(pid, task)).sum();
    }
    usage
}

/// Whether each thread of each member waits for something.
pub(crate) fn is_asleep(group: i32) -> bool {
    let tasks = |pid: i32| {
        let folder = format!("/proc/{pid}/task");
        names_in(Path::new(&folder)).into_iter().map(move |task| stat(&format!("{folder}/{task}")))
    };
    members(group).into_iter().flat_map(tasks).all(|stat| stat.starts_with('S'))
}

/// Whether each thread of a process is stopped, as by SIGSTOP.
pub(crate) fn is_stopped(pid: i32) -> bool {
    let folder = format!("/proc/{pid}/task");
    names_in(Path::new(&folder)).iter().all(|task| stat(&format!("{folder}/{task}")).starts_with('T'))
}

fn is_member(pid: i32, group: i32) -> bool {
    let stat = stat(&format!("/proc/{pid}"));
    let mut fields = stat.split(' ');
    fields.next().is_some_and(|state| state != "Z") && fields.nth(1).is_some_and(|field| field == group.to_string())
}

/// What the kernel says of a process or thread: `STATE PARENT GROUP …`.
fn stat(folder: &str) -> String {
    // Before that stands `NUMBER (NAME)`, and NAME may hold anything.
    read(&format!("{folder}/stat")).rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default()
}

fn anonymous_memory(pid: i32) -> u64 {
    let rollup = read(&format!("/proc/{pid}/smaps_rollup"));
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    let kilobytes: u64 = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0);
    kilobytes * 1024
}

fn cpu(pid: i32, task: &str) -> Duration {
    // The first number is nanoseconds on a processor: fine enough for a thousandth of a second, which utime is not.
    let schedstat = read(&format!("/proc/{pid}/task/{task}/schedstat"));
    Duration::from_nanos(schedstat.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0))
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

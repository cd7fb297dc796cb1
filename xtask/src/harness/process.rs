//! The resources of the processes of a group, read from /proc; their signals and limits.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use super::{WAIT_LIMIT, wait_for};

/// The resources of all processes of a group together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) processes: usize,
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
    /// Bytes of anonymous memory, that is, stacks and heap. Pages of the binary are left out, because other tests may
    /// run the same binary.
    pub(crate) memory: u64,
    /// Processor time of the threads that are alive.
    pub(crate) cpu: Duration,
}

/// Returns the pids in a group, zombies excepted. A process that has lost its parent still counts.
pub(crate) fn members(group: i32) -> Vec<i32> {
    let numbers = names_in(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok());
    let mut members: Vec<i32> = numbers.filter(|&pid| is_member(pid, group)).collect();
    members.sort_unstable();
    members
}

/// Returns the server's socket of a client's IPv4 connection, named as in /proc: `socket:[123]`. `None` before it is
/// accepted.
pub(crate) fn accepted_socket(server: SocketAddr, client: SocketAddr) -> Option<String> {
    // The thread's table: it may be in another network namespace than the rest of this process.
    let table = read("/proc/thread-self/net/tcp");
    let ends_in = |field: &str, address: SocketAddr| field.ends_with(&format!(":{:04X}", address.port()));
    let inode = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (ends_in(fields.get(1)?, server) && ends_in(fields.get(2)?, client)).then_some(*fields.get(9)?)
    });
    inode.filter(|&inode| inode != "0").map(|inode| format!("socket:[{inode}]"))
}

/// Returns whether a process has a descriptor of this socket, named as in /proc.
pub(crate) fn holds(pid: i32, socket: &str) -> bool {
    let folder = Path::new("/proc").join(pid.to_string()).join("fd");
    names_in(&folder).iter().any(|fd| fs::read_link(folder.join(fd)).is_ok_and(|link| link == Path::new(socket)))
}

/// Returns the parent of a process.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    stat(&format!("/proc/{pid}")).split(' ').nth(1)?.parse().ok()
}

/// Returns the children of a process, adopted ones included.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let numbers = names_in(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok());
    numbers.filter(|&other| parent(other) == Some(pid)).collect()
}

/// Returns the file that a process executes.
pub(crate) fn binary(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: i32, signal: Signal) -> Result<()> {
    kill_process(Pid::from_raw(pid).context("0 is no pid")?, signal)
        .with_context(|| format!("cannot signal process {pid}"))
}

/// Stops a process with SIGSTOP, and waits until every thread of it is stopped. Until then it may still read and
/// answer.
pub(crate) fn stop(pid: i32) -> Result<()> {
    signal(pid, Signal::STOP)?;
    wait_for(WAIT_LIMIT, || is_stopped(pid).then_some(())).with_context(|| format!("process {pid} does not stop"))
}

/// Changes the descriptor limit of a process; returns the previous one.
pub(crate) fn limit_descriptors(pid: i32, current: Option<u64>) -> Result<Option<u64>> {
    // The hard limit is the one of this process: it is inherited and never changed.
    let limit = Rlimit { current, maximum: getrlimit(Resource::Nofile).maximum };
    Ok(prlimit(Pid::from_raw(pid), Resource::Nofile, limit)?.current)
}

/// Adds up the resources of these processes. A process that exits meanwhile is counted in part.
pub(crate) fn usage(processes: Vec<i32>) -> Usage {
    let mut usage = Usage::default();
    for pid in processes {
        let process = Path::new("/proc").join(pid.to_string());
        let tasks = names_in(&process.join("task"));
        usage.processes += 1;
        usage.threads += tasks.len();
        usage.descriptors += names_in(&process.join("fd")).len();
        usage.memory += memory_of(&[pid], "smaps_rollup", "Pss_Anon:").unwrap_or(0);
        usage.cpu += tasks.iter().map(|task| cpu(pid, task)).sum();
    }
    usage
}

/// Returns the sum of a line of /proc/PID/`file`, such as `Pss:`, over these processes, in bytes.
pub(crate) fn memory_of(processes: &[i32], file: &str, what: &str) -> Result<u64> {
    processes.iter().map(|pid| bytes_in(&format!("/proc/{pid}/{file}"), what)).sum()
}

/// Returns a line of a file of the kernel, such as `KernelStack:` of /proc/meminfo, in bytes.
pub(crate) fn bytes_in(file: &str, what: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(what)).with_context(|| what.to_owned())?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Returns whether every thread of every member sleeps.
pub(crate) fn is_asleep(group: i32) -> bool {
    let tasks = |pid: i32| {
        let folder = format!("/proc/{pid}/task");
        names_in(Path::new(&folder)).into_iter().map(move |task| stat(&format!("{folder}/{task}")))
    };
    let states: Vec<String> = members(group).into_iter().flat_map(tasks).collect();
    !states.is_empty() && states.iter().all(|stat| stat.starts_with('S'))
}

/// Returns a line for each thread of each member, zombies included: its name, its state, the kernel function in which
/// it sleeps, and the number and arguments of its system call (proc_pid_syscall(5)).
pub(crate) fn threads_shown(group: i32) -> String {
    let numbers = names_in(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok());
    let mut processes: Vec<i32> =
        numbers.filter(|pid: &i32| group_in(&stat(&format!("/proc/{pid}"))) == Some(group)).collect();
    processes.sort_unstable();
    let mut text = String::new();
    for pid in processes {
        for task in names_in(Path::new(&format!("/proc/{pid}/task"))) {
            let thread = format!("/proc/{pid}/task/{task}");
            let line = |file: &str| read(&format!("{thread}/{file}")).trim().to_owned();
            let state = stat(&thread).chars().next().unwrap_or('-');
            let _ = writeln!(text, "{pid}/{task} {} {state} {} {}", line("comm"), line("wchan"), line("syscall"));
        }
    }
    text
}

/// Returns whether every thread of a process is stopped, as by SIGSTOP.
fn is_stopped(pid: i32) -> bool {
    let folder = format!("/proc/{pid}/task");
    let tasks = names_in(Path::new(&folder));
    !tasks.is_empty() && tasks.iter().all(|task| stat(&format!("{folder}/{task}")).starts_with('T'))
}

fn is_member(pid: i32, group: i32) -> bool {
    let stat = stat(&format!("/proc/{pid}"));
    !stat.starts_with('Z') && group_in(&stat) == Some(group)
}

fn group_in(stat: &str) -> Option<i32> {
    stat.split(' ').nth(2)?.parse().ok()
}

/// Returns the fields of a process or thread in proc_pid_stat(5): `STATE PARENT GROUP …`.
fn stat(folder: &str) -> String {
    // In front of them is `NUMBER (NAME)`, and NAME may hold anything.
    read(&format!("{folder}/stat")).rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default()
}

fn cpu(pid: i32, task: &str) -> Duration {
    // The first number is nanoseconds on a processor, which is finer than the ticks of utime.
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

//! The cost of serving: processor time, context switches, threads, descriptors, and memory for each idle client.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::time::ClockId;
use nix::unistd::Pid;

use super::processors::Processors;
use super::results::Idle;
use super::target::{Running, Setting, Target};
use crate::harness::client::APHORISMS;
use crate::harness::{Client, process};

/// Samples processor time, context switches and descriptors of the processes of a server.
pub(crate) struct ProcessSampler {
    /// The CPU clock of each process, the first process first. It counts all threads, also those that have ended, in
    /// nanoseconds. The sum of /proc/PID/task/*/schedstat would take long to read for 10,000 threads, and would lag by
    /// a tick for running ones.
    clocks: Vec<ClockId>,
    processes: Vec<PathBuf>,
    /// The `/proc` folders of the threads whose context switches are counted: all threads, or every n-th of many.
    tasks: Vec<PathBuf>,
    pub(crate) threads: usize,
}

/// Processor time used up to a moment, in seconds.
pub(crate) struct Cpu {
    at: Instant,
    seconds: f64,
}

/// Context switches up to a moment: voluntary ones by threads that wait, and involuntary ones by the scheduler.
pub(crate) struct Switches {
    at: Instant,
    voluntary: u64,
    involuntary: u64,
}

impl Cpu {
    /// Returns how many processors were busy since `before`.
    pub(crate) fn since(&self, before: &Cpu) -> f64 {
        (self.seconds - before.seconds).max(0.0) / (self.at - before.at).as_secs_f64()
    }
}

impl Switches {
    /// Returns the voluntary and the involuntary context switches per second since `before`.
    pub(crate) fn since(&self, before: &Switches) -> (f64, f64) {
        let time = (self.at - before.at).as_secs_f64();
        let more = |now: u64, then: u64| now.saturating_sub(then) as f64 / time;
        (more(self.voluntary, before.voluntary), more(self.involuntary, before.involuntary))
    }
}

impl ProcessSampler {
    pub(crate) fn new(processes: &[i32]) -> Result<ProcessSampler> {
        // In a server with a process for each client, some processes exit before their clock is read.
        let clock = |&pid: &i32| {
            let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).ok()?;
            Some((clock, Path::new("/proc").join(pid.to_string())))
        };
        let (clocks, processes_in_proc): (Vec<_>, Vec<PathBuf>) = processes.iter().filter_map(clock).unzip();
        ensure!(!clocks.is_empty(), "the server has exited");
        let tasks: Vec<PathBuf> = processes_in_proc.iter().flat_map(|process| entries(&process.join("task"))).collect();
        let threads = tasks.len();
        let every = threads.div_ceil(MOST_TASKS).max(1);
        Ok(ProcessSampler {
            clocks,
            processes: processes_in_proc,
            tasks: tasks.into_iter().step_by(every).collect(),
            threads,
        })
    }

    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let at = Instant::now();
        let (parent, children) = self.clocks.split_first().context("the server has exited")?;
        let own = Duration::from(parent.now().context("the server has exited")?);
        // The time of child processes that have exited is added by `ended_children`.
        let alive: Duration = children.iter().filter_map(|clock| clock.now().ok()).map(Duration::from).sum();
        Ok(Cpu { at, seconds: (own + alive).as_secs_f64() + self.ended_children()? })
    }

    /// Returns the seconds used by children that have exited, which the kernel counts in ticks (proc_pid_stat(5)).
    fn ended_children(&self) -> Result<f64> {
        let stat = fs::read_to_string(self.processes[0].join("stat")).context("the server has exited")?;
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ')).into_iter().flatten();
        let ticks: u64 = fields.skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    pub(crate) fn switches(&self) -> Switches {
        let (at, mut voluntary, mut involuntary) = (Instant::now(), 0, 0);
        for task in &self.tasks {
            let status = fs::read_to_string(task.join("status")).unwrap_or_default();
            voluntary += field(&status, "voluntary_ctxt_switches:");
            involuntary += field(&status, "nonvoluntary_ctxt_switches:");
        }
        // Extrapolated from the sample to all threads.
        let all = |of_some: u64| of_some * self.threads as u64 / self.tasks.len().max(1) as u64;
        Switches { at, voluntary: all(voluntary), involuntary: all(involuntary) }
    }

    /// Returns how many descriptors are open.
    pub(crate) fn descriptors(&self) -> usize {
        let count = |folder: PathBuf| match fs::metadata(&folder).map(|folder| folder.len()) {
            Ok(size @ 1..) => usize::try_from(size).unwrap_or(usize::MAX),
            // Before Linux 6.2 the folder has no size.
            _ => entries(&folder).len(),
        };
        self.processes.iter().map(|process| count(process.join("fd"))).sum()
    }
}

/// Measures the memory of `clients` idle clients. Each has asked one question, so that it was certainly accepted.
pub(crate) fn idle(target: &Target, setting: Setting, processors: &Processors, clients: usize) -> Result<Idle> {
    processors.for_server()?;
    let server = target.start(setting, &[], &[])?;
    processors.for_load()?;
    // A server allocates some memory once, for its first client. This is not part of the cost of a client.
    drop(ask_once(&server)?);
    thread::sleep(SETTLING / 3);
    let bytes_before = memory(&server)?;
    let idle = (0..clients).map(|_| ask_once(&server)).collect::<Result<Vec<_>>>()?;
    thread::sleep(SETTLING);
    let bytes_with = memory(&server)?;
    // The server is killed first, so that it does not handle the close of each client.
    drop(server);
    drop(idle);
    let per_client = (bytes_with as f64 - bytes_before as f64) / clients as f64;
    Ok(Idle { clients, bytes_before, bytes_with, bytes_per_client: per_client })
}

fn ask_once(server: &Running) -> Result<Client> {
    let mut client = Client::connect(server.address()).context("an idle client")?;
    let (question, answer) = APHORISMS[0];
    client.ask(question, answer).context("an idle client")?;
    Ok(client)
}

/// Returns the memory of all processes of a server: their proportional share of all pages (PSS), and their page tables.
/// Memory of the kernel for sockets and threads is not included.
fn memory(server: &Running) -> Result<u64> {
    let processes = server.processes();
    Ok(process::memory_of(&processes, "smaps_rollup", "Pss:")? + process::memory_of(&processes, "status", "VmPTE:")?)
}

/// Returns the number after `name` in a file of /proc.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The largest number of threads that are sampled: reading more takes too long.
const MOST_TASKS: usize = 256;

/// The time in which an allocator or a periodic task of a server frees memory: more than one tick of any server.
const SETTLING: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_sampled() {
        let own = i32::try_from(std::process::id()).expect("the kernel numbers processes with an i32");
        let sampler = ProcessSampler::new(&[own]).expect("it runs");
        let (before, switches) = (sampler.cpu().expect("it runs"), sampler.switches());
        let end = Instant::now() + Duration::from_millis(20);
        while Instant::now() < end {}
        assert!(sampler.cpu().expect("it runs").since(&before) > 0.0);
        let (voluntary, involuntary) = sampler.switches().since(&switches);
        assert!(voluntary.is_finite() && involuntary.is_finite());
        assert!(sampler.threads >= 1 && sampler.descriptors() >= 3);
    }

    #[test]
    fn fields_of_proc_are_read() {
        let text = "Name:\tx\nVmPTE:\t      44 kB\nnonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t9\n";
        assert_eq!(field(text, "VmPTE:"), 44);
        assert_eq!(field(text, "voluntary_ctxt_switches:"), 9);
        assert_eq!(field(text, "nonvoluntary_ctxt_switches:"), 7);
        assert_eq!(field(text, "nothing:"), 0);
    }
}

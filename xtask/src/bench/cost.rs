//! What serving costs the machine: processor time, context switches, threads, descriptors, and memory for each idle
//! client.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::time::ClockId;
use nix::unistd::Pid;

use super::processors::Processors;
use super::results::Idle;
use super::target::{Running, Setting, Target};
use crate::harness::WAIT_LIMIT;
use crate::harness::client::APHORISMS;

/// The processes whose costs are counted.
pub(crate) struct ProcessSampler {
    /// One clock for each process. The kernel counts its threads together, also those that have ended, to the
    /// nanosecond and at once; adding up /proc/PID/task/*/schedstat would take a while where there are 10,000 threads,
    /// and be late by a tick for those that run.
    clocks: Vec<ClockId>,
    processes: Vec<PathBuf>,
    /// Threads whose switches are counted: all, or every n-th of many.
    tasks: Vec<PathBuf>,
    pub(crate) threads: usize,
}

/// What they had used at a moment: of processor time in seconds.
pub(crate) struct Cpu {
    at: Instant,
    seconds: f64,
}

/// How often they had given the processor away at a moment, and how often it was taken from them.
pub(crate) struct Switches {
    at: Instant,
    voluntary: u64,
    involuntary: u64,
}

impl Cpu {
    /// Returns how many processors were busy since then.
    pub(crate) fn since(&self, before: &Cpu) -> f64 {
        (self.seconds - before.seconds).max(0.0) / (self.at - before.at).as_secs_f64()
    }
}

impl Switches {
    /// Returns how many there were a second since then: voluntary, and others.
    pub(crate) fn since(&self, before: &Switches) -> (f64, f64) {
        let time = (self.at - before.at).as_secs_f64();
        let more = |now: u64, then: u64| now.saturating_sub(then) as f64 / time;
        (more(self.voluntary, before.voluntary), more(self.involuntary, before.involuntary))
    }
}

impl ProcessSampler {
    pub(crate) fn new(processes: &[i32]) -> Result<ProcessSampler> {
        ensure!(!processes.is_empty(), "the server has ended");
        let clock = |&pid: &i32| ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).context("a process has no clock");
        let processes_in_proc: Vec<PathBuf> =
            processes.iter().map(|pid| Path::new("/proc").join(pid.to_string())).collect();
        let tasks: Vec<PathBuf> = processes_in_proc.iter().flat_map(|process| entries(&process.join("task"))).collect();
        let threads = tasks.len();
        let every = threads.div_ceil(MOST_TASKS).max(1);
        Ok(ProcessSampler {
            clocks: processes.iter().map(clock).collect::<Result<_>>()?,
            processes: processes_in_proc,
            tasks: tasks.into_iter().step_by(every).collect(),
            threads,
        })
    }

    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let (at, mut used) = (Instant::now(), Duration::ZERO);
        for clock in &self.clocks {
            used += Duration::from(clock.now().context("a process of the server has ended")?);
        }
        Ok(Cpu { at, seconds: used.as_secs_f64() })
    }

    pub(crate) fn switches(&self) -> Switches {
        let (at, mut voluntary, mut involuntary) = (Instant::now(), 0, 0);
        for task in &self.tasks {
            let status = fs::read_to_string(task.join("status")).unwrap_or_default();
            voluntary += field(&status, "voluntary_ctxt_switches:");
            involuntary += field(&status, "nonvoluntary_ctxt_switches:");
        }
        // As if all had been looked at.
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

/// Returns what `clients` idle clients cost. Each has asked once, so that it was surely accepted, and is silent since.
pub(crate) fn idle(target: &Target, setting: Setting, processors: &Processors, clients: usize) -> Result<Idle> {
    processors.for_server()?;
    let server = target.start(setting, &[], &[])?;
    processors.for_load()?;
    // What is made for the first client ever is no client's cost.
    drop(ask_once(&server)?);
    thread::sleep(SETTLING / 3);
    let bytes_before = memory(&server)?;
    let idle = (0..clients).map(|_| ask_once(&server)).collect::<Result<Vec<_>>>()?;
    thread::sleep(SETTLING);
    let bytes_with = memory(&server)?;
    // The server first: else it would be told of each client's end.
    drop(server);
    drop(idle);
    let per_client = (bytes_with as f64 - bytes_before as f64) / clients as f64;
    Ok(Idle { clients, bytes_before, bytes_with, bytes_per_client: per_client })
}

fn ask_once(server: &Running) -> Result<TcpStream> {
    let mut client = TcpStream::connect(server.address()).context("an idle client cannot connect")?;
    client.set_read_timeout(Some(WAIT_LIMIT))?;
    let (question, answer) = APHORISMS[0];
    client.write_all(question).context("an idle client's question")?;
    let mut came = vec![0; answer.len()];
    client.read_exact(&mut came).context("an idle client's answer")?;
    ensure!(came == answer, "an idle client got a wrong answer");
    Ok(client)
}

/// Proportional share of all pages, and the tables that map them, of all processes. What the kernel keeps for sockets
/// and threads is not in it.
fn memory(server: &Running) -> Result<u64> {
    let mut kilobytes = 0;
    for pid in server.processes() {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("the memory of the server")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the memory of the server")?;
        kilobytes += field(&rollup, "Pss:") + field(&status, "VmPTE:");
    }
    Ok(kilobytes * 1024)
}

/// Returns the number after `name` in a file of /proc.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Reading more of them takes longer than the moment that is meant.
const MOST_TASKS: usize = 256;

/// For an allocator, or a sweep, to give back what it gives back: more than one tick of any server.
const SETTLING: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_watched() {
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

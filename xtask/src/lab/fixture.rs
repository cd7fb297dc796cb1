//! What experiments have in common: servers by name, clients that all ask at once, times in words.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::harness::client::APHORISMS;
use crate::harness::group::run_within;
use crate::harness::{Client, Missing, Server, WAIT_LIMIT};
use crate::servers::SERVERS;
use crate::workspace;

/// Starts a server of the list.
pub(super) fn server(name: &str, arguments: &[&str]) -> Result<Server> {
    let entry = SERVERS.iter().find(|entry| entry.name == name);
    Server::start(entry.with_context(|| format!("no server is called {name}"))?, arguments)
}

/// Starts a faulty example.
pub(super) fn faulty_example(name: &str) -> Result<Server> {
    Server::run(Command::new(workspace::binary(&format!("examples/{name}"))?).args(["-p", "0"]))
}

/// Returns a client that has had an answer: it has been accepted, and is not only in the backlog.
pub(super) fn served_client(server: &Server) -> Result<Client> {
    let mut client = server.client()?;
    client.ask_all()?;
    Ok(client)
}

/// Connects clients that say nothing; all have been accepted when this returns.
pub(super) fn idle_clients(server: &Server, clients: usize) -> Result<Vec<Client>> {
    // In small parts, since a SYN that finds the backlog full is sent again a second later.
    const PART: usize = 100;
    let mut idle = Vec::with_capacity(clients);
    while idle.len() < clients {
        for _ in 0..PART.min(clients - idle.len()) {
            idle.push(server.client()?);
        }
        served_client(server)?;
    }
    Ok(idle)
}

/// Asks one question, and returns how long its answer took.
pub(super) fn asked(client: &mut Client) -> Result<Duration> {
    let start = Instant::now();
    let (question, answer) = APHORISMS[2];
    client.ask(question, answer)?;
    Ok(start.elapsed())
}

/// Connects all clients, then lets all ask at once. Returns when each had its answer, the first first.
pub(super) fn answer_times(address: SocketAddr, clients: usize) -> Result<Vec<Duration>> {
    let together = Barrier::new(clients);
    let ask = || {
        let client = Client::connect(address);
        together.wait();
        asked(&mut client?)
    };
    let mut times = at_once(clients, |_| ask())?;
    times.sort_unstable();
    Ok(times)
}

/// Does `work` in this number of threads at the same time.
pub(super) fn at_once<T: Send>(threads: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let work = &work;
    thread::scope(|scope| {
        let working: Vec<_> = (0..threads).map(|n| scope.spawn(move || work(n))).collect();
        working.into_iter().map(|one| one.join().map_err(|_| anyhow!("a client panicked"))?).collect()
    })
}

/// Returns how many answers came in each turn, where the work takes `delay`.
pub(super) fn turns(times: &[Duration], delay: Duration) -> Vec<usize> {
    times.chunk_by(|a, b| *b - *a < delay / 2).map(<[_]>::len).collect()
}

/// Returns what `zen-client check` says of one of its cases: `None` if it passes, else the line that names the rule.
pub(super) fn check(server: &Server, case: &str) -> Result<Option<String>> {
    let (host, port) = (server.address().ip().to_string(), server.address().port().to_string());
    let mut client = Command::new(workspace::binary("zen-client")?);
    let output =
        run_within(WAIT_LIMIT, client.args(["check", &host, "-p", &port, "--case", case, "--timeout", "500ms"]))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().next().with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    ensure!(output.status.success() == line.starts_with("ok "), "the judge ended with {} after {line}", output.status);
    Ok(line.starts_with("FAILED ").then(|| line.to_owned()))
}

/// Ensures that the judge finds this rule broken by the faulty example, and not by the fixed server.
/// Returns what it says.
pub(super) fn judged(faulty: &Server, cured: &Server, case: &str, rule: u8) -> Result<String> {
    let line = check(faulty, case)?.with_context(|| format!("the judge sees nothing wrong in {case}"))?;
    ensure!(line.starts_with(&format!("FAILED {case}: rule {rule} ")), "another rule is named: {line}");
    let cured = check(cured, case)?;
    ensure!(cured.is_none(), "the fixed server: {cured:?}");
    let end = line.find("): ").map_or(line.len(), |at| at + 1);
    Ok(format!("check: {}", &line[..end]))
}

/// Changes a process's limit of descriptors, and returns the one it had.
pub(super) fn limit_descriptors(pid: i32, current: Option<u64>) -> Result<Option<u64>> {
    let limit = Rlimit { current, maximum: getrlimit(Resource::Nofile).maximum };
    Ok(prlimit(Pid::from_raw(pid), Resource::Nofile, limit)?.current)
}

/// Returns local and remote port of each IPv4 connection that has `port` at its local end and is in `state`.
/// `process`, a number or `thread-self`, says in which network namespace.
pub(super) fn connections(process: &str, port: u16, state: &str) -> Result<Vec<(u16, u16)>> {
    let table = fs::read_to_string(format!("/proc/{process}/net/tcp")).context("the kernel's connections")?;
    let port_of = |field: &str| u16::from_str_radix(field.rsplit_once(':')?.1, 16).ok();
    let ports = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, remote) = (port_of(fields.get(1)?)?, port_of(fields.get(2)?)?);
        (local == port && fields.get(3) == Some(&state)).then_some((local, remote))
    };
    Ok(table.lines().skip(1).filter_map(ports).collect())
}

/// The states of /proc/net/tcp.
pub(super) const ESTABLISHED: &str = "01";
pub(super) const TIME_WAIT: &str = "06";
pub(super) const CLOSE_WAIT_STATE: &str = "08";

/// This process's limit of descriptors, raised until this is dropped: servers that are started later inherit it.
pub(super) struct Descriptors(Rlimit);

impl Descriptors {
    pub(super) fn raise(needed: u64) -> Result<Descriptors> {
        let limit = getrlimit(Resource::Nofile);
        let most = limit.maximum.unwrap_or(u64::MAX);
        ensure!(most >= needed, Missing(format!("a limit of {needed} descriptors (ulimit -Hn says {most})")));
        let current = limit.current.map(|current| current.max(needed));
        setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
        Ok(Descriptors(limit))
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // What is open stays open; a lower limit is never refused.
        let _ = setrlimit(Resource::Nofile, self.0);
    }
}

/// Returns the sum of a line of /proc/PID/`file`, such as `Pss:`, over all processes of a server, in bytes.
pub(super) fn memory_of(server: &Server, file: &str, what: &str) -> Result<u64> {
    let of = |pid: i32| -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| file.to_owned())?;
        let line = text.lines().find_map(|line| line.strip_prefix(what)).with_context(|| what.to_owned())?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    };
    server.processes().into_iter().map(of).sum()
}

/// Returns the middle one; zero of none.
pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Returns a duration in milliseconds, with a decimal where there are few.
pub(super) fn ms(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    if milliseconds < 10.0 { format!("{milliseconds:.1} ms") } else { format!("{milliseconds:.0} ms") }
}

/// Returns several durations in whole milliseconds.
pub(super) fn all_ms(times: &[Duration]) -> String {
    let whole: Vec<String> = times.iter().map(|time| time.as_millis().to_string()).collect();
    format!("{} ms", whole.join(", "))
}

/// Returns how many times `b` goes into `a`.
pub(super) fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64().max(1e-9)
}

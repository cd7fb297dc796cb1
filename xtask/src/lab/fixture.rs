//! Functions that experiments share: to start servers, to connect clients that ask at the same time, to format times.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::client::APHORISMS;
use crate::harness::group::run_within;
use crate::harness::{Client, Missing, Server, WAIT_LIMIT, at_once, zen_client};
use crate::servers;
use crate::workspace;

/// Starts a server of the list.
pub(super) fn server(name: &str, arguments: &[&str]) -> Result<Server> {
    Server::start(servers::named(name)?, arguments)
}

/// Starts a faulty example.
pub(super) fn faulty_example(name: &str) -> Result<Server> {
    Server::run(Command::new(workspace::binary(&format!("examples/{name}"))?).args(["-p", "0"]))
}

/// Connects clients that send nothing. All have been accepted when it returns.
pub(super) fn idle_clients(server: &Server, clients: usize) -> Result<Vec<Client>> {
    // In small groups: if the backlog is full, the kernel drops a SYN, and the client sends it again a second later.
    const PART: usize = 100;
    let mut idle = Vec::with_capacity(clients);
    while idle.len() < clients {
        for _ in 0..PART.min(clients - idle.len()) {
            idle.push(server.client()?);
        }
        server.served_client()?;
    }
    Ok(idle)
}

/// Asks one question, and returns how long its answer took.
pub(super) fn time_answer(client: &mut Client) -> Result<Duration> {
    let start = Instant::now();
    let (question, answer) = APHORISMS[2];
    client.ask(question, answer)?;
    Ok(start.elapsed())
}

/// Connects all clients, which then ask at the same time. Returns how long each waited for its answer, in ascending
/// order.
pub(super) fn answer_times(address: SocketAddr, clients: usize) -> Result<Vec<Duration>> {
    let together = Barrier::new(clients);
    let ask = || {
        let client = Client::connect(address);
        together.wait();
        time_answer(&mut client?)
    };
    let mut times = at_once(clients, |_| ask())?;
    times.sort_unstable();
    Ok(times)
}

/// Runs one case of `zen-client check`. Returns `None` if it passes, else the line that names the broken rule.
pub(super) fn check(server: &Server, case: &str) -> Result<Option<String>> {
    let mut judge = zen_client("check", server.address())?;
    let output = run_within(WAIT_LIMIT, judge.args(["--case", case, "--timeout", "500ms"]))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = printed.lines().next().with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    ensure!(
        output.status.success() == line.starts_with("ok "),
        "zen-client check ended with {} after {line}",
        output.status
    );
    Ok(line.starts_with("FAILED ").then(|| line.to_owned()))
}

/// Ensures that `zen-client check` finds this rule broken by the faulty example, and not by the fixed server.
/// Returns the beginning of its line.
pub(super) fn check_both(faulty: &Server, fixed: &Server, case: &str, rule: u8) -> Result<String> {
    let line = check(faulty, case)?.with_context(|| format!("the faulty example passes {case}"))?;
    ensure!(line.starts_with(&format!("FAILED {case}: rule {rule} ")), "expected rule {rule} to be broken: {line}");
    let fixed = check(fixed, case)?;
    ensure!(fixed.is_none(), "the fixed server fails: {fixed:?}");
    let end = line.find("): ").map_or(line.len(), |at| at + 1);
    Ok(format!("check: {}", &line[..end]))
}

/// Returns local and remote port of each IPv4 connection whose local port is `port` and that is in `state`.
///
/// The connections are those in the network namespace of `process`, a process ID or `thread-self`.
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

/// A guard that has raised this process's descriptor limit, and restores it on drop. Servers that are started meanwhile
/// inherit the raised limit.
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
        // Open descriptors stay open, and lowering the limit cannot fail.
        let _ = setrlimit(Resource::Nofile, self.0);
    }
}

/// Returns the processor time of a server's processes, threads that have ended included.
pub(super) fn cpu_of(server: &Server) -> Result<Duration> {
    let of = |pid: i32| -> Result<Duration> {
        let pid = nix::unistd::Pid::from_raw(pid);
        let clock = nix::time::ClockId::pid_cpu_clock_id(pid).context("its clock")?;
        Ok(clock.now()?.into())
    };
    server.processes().into_iter().map(of).sum()
}

/// Returns the median, or zero if there are no times.
pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Formats a duration in milliseconds, with a decimal below 10 ms.
pub(super) fn ms(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    if milliseconds < 10.0 { format!("{milliseconds:.1} ms") } else { format!("{milliseconds:.0} ms") }
}

/// Formats durations in whole milliseconds: `200, 401 ms`.
pub(super) fn all_ms(times: &[Duration]) -> String {
    let whole: Vec<String> = times.iter().map(|time| time.as_millis().to_string()).collect();
    format!("{} ms", whole.join(", "))
}

/// Returns `a / b`.
pub(super) fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64().max(1e-9)
}

//! What experiments have in common: servers by name, clients that all ask at once, times in words.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::harness::client::APHORISMS;
use crate::harness::group::run_within;
use crate::harness::{Client, PATIENCE, Server};
use crate::servers::SERVERS;
use crate::workspace;

/// Starts a server of the list.
pub(super) fn server(name: &str, arguments: &[&str]) -> Result<Server> {
    let entry = SERVERS.iter().find(|entry| entry.name == name);
    Server::start(entry.with_context(|| format!("no server is called {name}"))?, arguments)
}

/// Starts an exhibit.
pub(super) fn exhibit(name: &str) -> Result<Server> {
    Server::run(Command::new(workspace::binary(&format!("examples/{name}"))?).args(["-p", "0"]))
}

/// A client that has had an answer: it has been accepted, and not only been let into the backlog.
pub(super) fn guest(server: &Server) -> Result<Client> {
    let mut client = server.client()?;
    client.ask_all()?;
    Ok(client)
}

/// Asks one question; how long its answer took.
pub(super) fn asked(client: &mut Client) -> Result<Duration> {
    let start = Instant::now();
    let (question, answer) = APHORISMS[2];
    client.ask(question, answer)?;
    Ok(start.elapsed())
}

/// All connect, then all ask at once, and each leaves with its answer: when each had it, the first first.
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

/// Does `work` in so many threads at the same time.
pub(super) fn at_once<T: Send>(threads: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let work = &work;
    thread::scope(|scope| {
        let working: Vec<_> = (0..threads).map(|n| scope.spawn(move || work(n))).collect();
        working.into_iter().map(|one| one.join().map_err(|_| anyhow!("a client panicked"))?).collect()
    })
}

/// How many answers came in each turn, where thinking takes `delay`.
pub(super) fn turns(times: &[Duration], delay: Duration) -> Vec<usize> {
    times.chunk_by(|a, b| *b - *a < delay / 2).map(<[_]>::len).collect()
}

/// What `zen-client check` says of one of its cases: `None` if it passes, else the line that names the rule.
pub(super) fn check(server: &Server, case: &str) -> Result<Option<String>> {
    let (host, port) = (server.address().ip().to_string(), server.address().port().to_string());
    let mut client = Command::new(workspace::binary("zen-client")?);
    let output =
        run_within(PATIENCE, client.args(["check", &host, "-p", &port, "--case", case, "--timeout", "500ms"]))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().next().with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    ensure!(output.status.success() == line.starts_with("ok "), "the judge ended with {} after {line}", output.status);
    Ok(line.starts_with("FAILED ").then(|| line.to_owned()))
}

/// The judge finds that the exhibit breaks this rule, and that the cured server does not; what it says of the exhibit.
pub(super) fn judged(faulty: &Server, cured: &Server, case: &str, rule: u8) -> Result<String> {
    let line = check(faulty, case)?.with_context(|| format!("the judge sees nothing wrong in {case}"))?;
    ensure!(line.starts_with(&format!("FAILED {case}: rule {rule} ")), "another rule is named: {line}");
    let cured = check(cured, case)?;
    ensure!(cured.is_none(), "the cured server: {cured:?}");
    let end = line.find("): ").map_or(line.len(), |at| at + 1);
    Ok(format!("check: {}", &line[..end]))
}

/// Changes a process's limit of descriptors; the one it had.
pub(super) fn limit_descriptors(pid: i32, current: Option<u64>) -> Result<Option<u64>> {
    let limit = Rlimit { current, maximum: getrlimit(Resource::Nofile).maximum };
    Ok(prlimit(Pid::from_raw(pid), Resource::Nofile, limit)?.current)
}

/// A duration as one says it: milliseconds, with a decimal where there are few.
pub(super) fn ms(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    if milliseconds < 10.0 { format!("{milliseconds:.1} ms") } else { format!("{milliseconds:.0} ms") }
}

/// Several of them.
pub(super) fn all_ms(times: &[Duration]) -> String {
    let whole: Vec<String> = times.iter().map(|time| time.as_millis().to_string()).collect();
    format!("{} ms", whole.join(", "))
}

/// How many times `b` goes into `a`.
pub(super) fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64().max(1e-9)
}

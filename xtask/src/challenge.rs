//! `cargo xtask challenge -- COMMAND {port}`: your own server, in any language, judged, probed and measured beside ours.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::harness::client::{Came, connect};
use crate::harness::group::{Group, run_within};
use crate::harness::{Client, PATIENCE, process, wait_for};
use crate::workspace;

/// Judges, probes and measures a server of yours
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// How long each load lasts, in seconds
    #[arg(long, value_name = "N", default_value_t = 2)]
    seconds: u64,
    /// How your server is started; {port} is replaced by the port it is to listen on
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    ensure!(
        flags.command.iter().any(|word| word.contains("{port}")),
        "the command must say {{port}} where the port belongs, as in `-- python3 zen.py {{port}}`"
    );
    workspace::build()?;
    let mut card = Card::default();
    judge(flags, &mut card)?;
    println!();
    for probe in PROBES {
        let (passed, saw) = match (probe.run)(&Challenger::start(flags)?, flags) {
            Ok(saw) => (true, saw),
            Err(error) => (false, format!("{error:#}")),
        };
        card.note(passed);
        println!("{} {}: {saw}\n       {}", if passed { "ok    " } else { "FAILED" }, probe.name, probe.lesson);
    }
    println!();
    measure(flags)?;
    println!("{} passed, {} failed", card.passed, card.failed);
    Ok(if card.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What has been seen so far.
#[derive(Default)]
struct Card {
    passed: u64,
    failed: u64,
}

impl Card {
    fn note(&mut self, passed: bool) {
        *(if passed { &mut self.passed } else { &mut self.failed }) += 1;
    }
}

/// The protocol, by `zen-client check`.
fn judge(flags: &Flags, card: &mut Card) -> Result<()> {
    let challenger = Challenger::start(flags)?;
    let mut check = Command::new(workspace::binary("zen-client")?);
    check.args(["check", "127.0.0.1", "-p", &challenger.address.port().to_string()]);
    let output = run_within(LONGEST, &mut check)?;
    for line in String::from_utf8_lossy(&output.stdout).lines().filter(|line| !line.ends_with(" failed")) {
        card.note(line.starts_with("ok "));
        println!("{line}");
    }
    Ok(())
}

/// What the protocol does not say and a service needs.
struct Probe {
    name: &'static str,
    run: fn(&Challenger, &Flags) -> Result<String>,
    lesson: &'static str,
}

const PROBES: [Probe; 5] = [
    Probe { name: "a silent client keeps nobody out", run: hog, lesson: "cargo xtask lab hog" },
    Probe { name: "64 clients at once", run: crowd, lesson: "cargo xtask lab backlog workers" },
    Probe {
        name: "a client that never reads costs little",
        run: never_reading,
        lesson: "read zen-proto/src/conversation.rs",
    },
    Probe { name: "SIGTERM ends it", run: terminate, lesson: "read zen-proto/src/server/stop.rs" },
    Probe { name: "it can be started again at once", run: restart, lesson: "cargo xtask lab reuse" },
];

fn hog(challenger: &Challenger, _: &Flags) -> Result<String> {
    let _silent = challenger.client()?;
    let mut honest = challenger.client()?;
    honest.set_patience(ANSWER_WITHIN)?;
    honest.ask_all().context("beside a silent client nobody else is answered")?;
    Ok("it serves others meanwhile".into())
}

fn crowd(challenger: &Challenger, _: &Flags) -> Result<String> {
    let start = Instant::now();
    let mut clients = (0..64).map(|_| challenger.client()).collect::<Result<Vec<_>>>()?;
    for client in &mut clients {
        client.set_patience(ANSWER_WITHIN)?;
        client.ask_all()?;
    }
    Ok(format!("all are answered, after {:.0?}", start.elapsed()))
}

fn never_reading(challenger: &Challenger, _: &Flags) -> Result<String> {
    let before = challenger.memory();
    let mut client = Client::connect_with_buffer(challenger.address, 4096)?;
    let (mut pushed, start) = (0, Instant::now());
    while pushed < MOST_PUSHED && start.elapsed() < ANSWER_WITHIN {
        match client.push(&[b'?'; 4096]) {
            Ok(n) => pushed += n,
            Err(_) => break, // it was cut off, which is fair
        }
    }
    let more = challenger.memory().saturating_sub(before);
    ensure!(more < MOST_MEMORY, "it takes {} KiB and holds {} KiB for one client", pushed / 1024, more / 1024);
    Ok(format!("it takes {} KiB of its questions and holds {} KiB for it", pushed / 1024, more / 1024))
}

fn terminate(challenger: &Challenger, _: &Flags) -> Result<String> {
    let start = Instant::now();
    let pid = Pid::from_raw(challenger.group.id()).context("it has no process")?;
    kill_process(pid, Signal::TERM)?;
    let is_gone = || process::members(challenger.group.id()).is_empty().then_some(());
    wait_for(ANSWER_WITHIN, is_gone).context("it is still there")?;
    Ok(format!("it is gone after {:.0?}", start.elapsed()))
}

fn restart(challenger: &Challenger, flags: &Flags) -> Result<String> {
    // The server ends this connection, so its side of it lingers in TIME_WAIT.
    let mut client = challenger.client()?;
    client.send(&[b'x'; 257])?;
    while matches!(client.read_some()?, Came::Bytes(_)) {}
    drop(client);
    let _kept_open = challenger.client()?;
    terminate(challenger, flags)?;
    Challenger::start_on(flags, challenger.address).context("it cannot listen on its port again")?;
    Ok("it can".into())
}

/// A load beside ours, in turns.
fn measure(flags: &Flags) -> Result<()> {
    println!("answers in a second, of 16 clients that ask without a pause ({ROUNDS} rounds in turns, least … most):");
    let mut yours = Vec::new();
    let mut ours: Vec<_> = OURS.iter().map(|(package, _)| (*package, Vec::new())).collect();
    for _ in 0..ROUNDS {
        yours.push(load(flags, Challenger::start(flags)?.address)?);
        for ((package, rates), (_, arguments)) in ours.iter_mut().zip(OURS) {
            let mut command = vec![workspace::binary(package)?.to_string_lossy().into_owned()];
            command.extend(arguments.iter().map(ToString::to_string));
            let server = Challenger::start(&Flags { seconds: flags.seconds, command })?;
            rates.push(load(flags, server.address)?);
        }
    }
    for (name, rates) in [("yours", &yours)].into_iter().chain(ours.iter().map(|(name, rates)| (*name, rates))) {
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rates.iter().copied().fold(0.0, f64::max);
        println!("{name:<14} {least:>9.0} … {most:.0}");
    }
    println!("(ours as built for tests; `cargo xtask bench --peer yours='COMMAND {{port}}'` compares with care)\n");
    Ok(())
}

/// Answers in a second.
fn load(flags: &Flags, server: SocketAddr) -> Result<f64> {
    #[derive(Deserialize)]
    struct Report {
        answers_per_second: f64,
    }
    let mut load = Command::new(workspace::binary("zen-client")?);
    load.args(["load", "127.0.0.1", "-p", &server.port().to_string(), "--json", "-c", "16", "--warmup", "200ms"]);
    load.args(["--timeout", "2s", "--duration", &format!("{}s", flags.seconds)]);
    let output = run_within(LONGEST, &mut load)?;
    // A load with failures has a result too; the judge has named them by now.
    let report: Report = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no load: {}", String::from_utf8_lossy(&output.stderr).trim_end()))?;
    Ok(report.answers_per_second)
}

/// The learner's server, or one of ours in its place.
struct Challenger {
    group: Group,
    address: SocketAddr,
}

impl Challenger {
    fn start(flags: &Flags) -> Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Self::start_on(flags, address)
    }

    fn start_on(flags: &Flags, address: SocketAddr) -> Result<Self> {
        let port = address.port().to_string();
        let words: Vec<_> = flags.command.iter().map(|word| word.replace("{port}", &port)).collect();
        let (program, arguments) = words.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut group = Group::start(&mut command)?;
        let is_up = || connect(address, PATIENCE).ok().map(|_| true);
        let up = wait_for(PATIENCE, || is_up().or_else(|| group.ended_within(Duration::ZERO).map(|_| false)));
        ensure!(up == Some(true), "nobody listens on {address} after `{}`", words.join(" "));
        Ok(Self { group, address })
    }

    fn client(&self) -> Result<Client> {
        Client::connect(self.address)
    }

    fn memory(&self) -> u64 {
        process::usage(self.group.id()).memory
    }
}

/// Ours beside it: the simplest, the one most like it, and the one for many clients.
const OURS: [(&str, &[&str]); 3] = [
    ("zen-single", &["-q", "-p", "{port}"]),
    ("zen-threaded", &["-q", "--mode", "per-connection", "-p", "{port}"]),
    ("zen-poll", &["-q", "-p", "{port}"]),
];

const ROUNDS: usize = 3;
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);
const MOST_PUSHED: usize = 64 << 20;
const MOST_MEMORY: u64 = 4 << 20;

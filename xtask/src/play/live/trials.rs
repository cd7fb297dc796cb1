//! Tests of `play --live`: the requests that are rejected, the events, and that no process is left behind.

mod page;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::serve;
use crate::harness::group::Group;
use crate::harness::metrics::exchange;
use crate::harness::{WAIT_LIMIT, strace, wait_for};
use crate::servers;
use crate::trial::Trial;

/// Returns the tests of `play --live`.
pub(crate) fn trials() -> Vec<Trial> {
    type Body = fn() -> Result<()>;
    let bodies: [(&str, Body); 6] = [
        ("only_its_own_page_is_answered", only_its_own_page_is_answered),
        ("one_client_too_many_is_refused", one_client_too_many_is_refused),
        ("the_events_show_waits_and_a_swap_keeps_the_clients", the_events_show_waits_and_a_swap_keeps_the_clients),
        ("a_lost_page_ends_the_run", a_lost_page_ends_the_run),
        ("an_interrupt_leaves_nothing", an_interrupt_leaves_nothing),
        ("a_page_in_a_browser", page::in_a_browser),
    ];
    let trial = |(name, body): (&str, Body)| {
        Trial::new(format!("play::live::{name}"), move || {
            strace()?;
            body()
        })
        .alone()
    };
    bodies.into_iter().map(trial).collect()
}

fn only_its_own_page_is_answered() -> Result<()> {
    let run = Run::start("single", WAIT_LIMIT)?;
    ensure!(run.page.address.ip().is_loopback(), "it listens on {}", run.page.address);
    let Page { address, folder } = &run.page;
    let other = folder.replace(|c: char| c.is_ascii_hexdigit(), "0");
    let own = address.to_string();
    for (request, host, status) in [
        (format!("GET {folder}"), own.as_str(), 200),
        ("GET /".to_owned(), &own, 404),
        (format!("GET {other}"), &own, 404),
        (format!("GET {other}events"), &own, 404),
        (format!("POST {other}actions"), &own, 404),
        (format!("GET {folder}elsewhere"), &own, 404),
        (format!("GET {folder}"), "zen.example", 403),
        (format!("GET {folder}events"), "zen.example", 403),
        (format!("POST {folder}actions"), "zen.example", 403),
        (format!("POST {folder}actions"), &own, 409),
    ] {
        let answer = exchange(*address, &format!("{request} HTTP/1.0\r\nHost: {host}\r\n\r\n"))?;
        ensure!(answer.starts_with(&format!("HTTP/1.0 {status} ")), "{request} of {host}: {answer}");
    }
    let long = format!(r#"{{"do":"{}"}}"#, "x".repeat(2000));
    ensure!(run.page.act(&long)?.0 == 409, "an action over the limit is accepted");
    run.stop()
}

fn one_client_too_many_is_refused() -> Result<()> {
    let run = Run::start("poll", WAIT_LIMIT)?;
    for number in 1..=200 {
        let (status, said) = run.page.act(r#"{"do":"add","behaviour":"silent"}"#)?;
        ensure!(status == 200, "client {number}: {said}");
    }
    let (status, said) = run.page.act(r#"{"do":"add","behaviour":"silent"}"#)?;
    ensure!(status == 409 && said == "error: 200 clients are connected: remove one", "{status}: {said}");
    for action in [r#"{"do":"remove","client":7}"#, r#"{"do":"add","behaviour":"honest"}"#] {
        let (status, said) = run.page.act(action)?;
        ensure!(status == 200, "{action}: {said}");
    }
    let mut events = run.page.events()?;
    events.wait(|event| (client(event, 201)?["events"].as_array()?.len() > 2).then_some(()))?;
    let (status, said) = run.page.act(r#"{"do":"remove","client":7}"#)?;
    ensure!(status == 409 && said == "error: there is no client 7", "{status}: {said}");
    run.stop()
}

fn the_events_show_waits_and_a_swap_keeps_the_clients() -> Result<()> {
    let run = Run::start("single", WAIT_LIMIT)?;
    let mut events = run.page.events()?;
    run.page.act(r#"{"do":"add","behaviour":"silent"}"#)?;
    let start = Instant::now();
    events.wait(|event| sleeps_in_recv(event, 1).then_some(()))?;
    // It takes 200 ms where the machine has nothing else to do.
    ensure!(start.elapsed() < Duration::from_secs(2), "the events show the recv() only after {:?}", start.elapsed());
    run.page.act(r#"{"do":"add","behaviour":"honest"}"#)?;
    events.wait(|event| (stay(event, 2)? == "backlog").then_some(()))?;

    let (status, said) = run.page.act(r#"{"do":"swap","server":"poll"}"#)?;
    ensure!(status == 200, "{said}");
    events.wait(|event| {
        let is_answered = |event: &Value| event["kind"] == "answered";
        let answered = client(event, 2)?["events"].as_array()?.iter().any(is_answered);
        (event["server"] == "poll" && answered && stay(event, 1)? == "idle").then_some(())
    })?;
    let threads =
        events.wait(|event| (event["counters"]["threads"].as_u64()? > 0).then(|| event["counters"].clone()))?;
    ensure!(threads["memory"].as_u64() > Some(0) && threads["processes"] == 1, "{threads}");

    let (status, said) = run.page.act(r#"{"do":"swap","server":"completion"}"#)?;
    ensure!(status == 409 && said.contains("choose another"), "{status}: {said}");
    run.page.act(r#"{"do":"remove","client":1}"#)?;
    events.wait(|event| (client(event, 1).is_none() && client(event, 2).is_some()).then_some(()))?;
    run.stop()
}

fn a_lost_page_ends_the_run() -> Result<()> {
    // The first page may take ten times as long, which is longer than this test waits.
    let lost_after = Duration::from_secs(3);
    let run = Run::start("processes", lost_after)?;
    let mut events = run.page.events()?;
    run.page.act(r#"{"do":"add","behaviour":"honest"}"#)?;
    // A page that is open keeps it running.
    let end = Instant::now() + lost_after + Duration::from_secs(1);
    let threads = events.wait(|event| (Instant::now() >= end).then(|| threads(event)))?;
    ensure!(!threads.is_empty(), "the events have no thread");
    drop(events);
    run.ends()?;
    are_gone(&threads)
}

fn an_interrupt_leaves_nothing() -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut group = Group::start(command.args(["play", "--live", "workers"]).stdout(Stdio::piped()))?;
    let stdout = group.capture_stdout()?;
    let line = stdout.wait_for(6 * WAIT_LIMIT, |said| String::from_utf8_lossy(said).lines().find_map(Page::named));
    let page = line.with_context(|| format!("no address of a page in {:?}", stdout.text()))?;
    let mut events = page.events()?;
    page.act(r#"{"do":"add","behaviour":"silent"}"#)?;
    let threads = events.wait(|event| sleeps_in_recv(event, 1).then(|| threads(event)))?;
    group.signal(Signal::INT)?;
    let status = group.ended_within(WAIT_LIMIT).context("SIGINT does not end it")?;
    ensure!(status.code() == Some(130), "{status}");
    are_gone(&threads)
}

/// A run in this process.
struct Run {
    page: Page,
    /// `None` once it has ended.
    thread: Option<JoinHandle<Result<()>>>,
}

impl Drop for Run {
    fn drop(&mut self) {
        // A failed test must not leave the run behind.
        if let Some(thread) = self.thread.take()
            && self.page.act(r#"{"do":"stop"}"#).is_ok()
        {
            let _ = thread.join();
        }
    }
}

/// Where a page is.
struct Page {
    address: SocketAddr,
    folder: String,
}

/// What a page receives.
struct Events(BufReader<TcpStream>);

impl Run {
    fn start(server: &str, lost_after: Duration) -> Result<Run> {
        let entry = servers::named(server)?;
        let (opened, is_opened) = channel();
        let thread = thread::spawn(move || {
            // If the receiver was dropped, the test has failed.
            serve(entry, lost_after, |address| _ = opened.send(Page::named(address)))
        });
        match is_opened.recv_timeout(WAIT_LIMIT) {
            Ok(page) => Ok(Run { page: page.context("no address of a page")?, thread: Some(thread) }),
            Err(_) if thread.is_finished() => bail!("the run ended: {:?}", thread.join()),
            Err(_) => bail!("no page was opened within {WAIT_LIMIT:?}"),
        }
    }

    fn stop(self) -> Result<()> {
        let (status, said) = self.page.act(r#"{"do":"stop"}"#)?;
        ensure!(status == 200, "{said}");
        self.ends()
    }

    fn ends(mut self) -> Result<()> {
        let has_ended = || self.thread.as_ref()?.is_finished().then_some(());
        wait_for(WAIT_LIMIT, has_ended).context("the run does not end")?;
        let thread = self.thread.take().context("it ends once")?;
        thread.join().map_err(|_| anyhow!("the run panicked"))?
    }
}

impl Page {
    fn named(text: &str) -> Option<Page> {
        let (host, rest) = text.split_once("http://")?.1.split_once('/')?;
        let folder = format!("/{}/", rest.split_once('/')?.0);
        Some(Page { address: host.parse().ok()?, folder })
    }

    fn url(&self) -> String {
        format!("http://{}{}", self.address, self.folder)
    }

    /// Asks for an action and returns the status and the text of the answer.
    fn act(&self, action: &str) -> Result<(u16, String)> {
        let Page { address, folder } = self;
        let head = format!("POST {folder}actions HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}", action.len());
        let answer = exchange(*address, &format!("{head}\r\n\r\n{action}"))?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let (_, said) = answer.split_once("\r\n\r\n").context("no end of the head")?;
        Ok((status.with_context(|| answer.clone())?, said.to_owned()))
    }

    fn events(&self) -> Result<Events> {
        let mut stream = TcpStream::connect_timeout(&self.address, WAIT_LIMIT)?;
        stream.set_read_timeout(Some(WAIT_LIMIT))?;
        write!(stream, "GET {}events HTTP/1.0\r\nHost: {}\r\n\r\n", self.folder, self.address)?;
        Ok(Events(BufReader::new(stream)))
    }
}

impl Events {
    /// Waits for an event in which `find` finds something.
    fn wait<T>(&mut self, find: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + WAIT_LIMIT;
        let mut line = String::new();
        while Instant::now() < deadline {
            line.clear();
            ensure!(self.0.read_line(&mut line)? > 0, "the stream of events ended");
            if let Some(json) = line.strip_prefix("data: ")
                && let Some(found) = find(&serde_json::from_str(json)?)
            {
                return Ok(found);
            }
        }
        bail!("no expected event within {WAIT_LIMIT:?}; the last one is {line}")
    }
}

fn client(event: &Value, number: u64) -> Option<&Value> {
    event["clients"].as_array()?.iter().find(|client| client["client"] == number)
}

/// Returns what a client waits for now.
fn stay(event: &Value, number: u64) -> Option<&str> {
    client(event, number)?["intervals"].as_array()?.last()?["stay"].as_str()
}

/// Returns whether some thread sleeps in recv() for this client now.
fn sleeps_in_recv(event: &Value, number: u64) -> bool {
    let lasts =
        event["threads"].as_array().into_iter().flatten().filter_map(|lane| lane["intervals"].as_array()?.last());
    lasts
        .filter(|last| last["until"] == event["now"])
        .any(|last| last["activity"] == "recv" && last["client"] == number)
}

/// Returns the numbers of the threads in an event.
fn threads(event: &Value) -> Vec<u64> {
    event["threads"].as_array().into_iter().flatten().filter_map(|lane| lane["thread"].as_u64()).collect()
}

fn are_gone(threads: &[u64]) -> Result<()> {
    let is_there = |thread: &&u64| Path::new("/proc").join(thread.to_string()).exists();
    let gone = wait_for(WAIT_LIMIT, || threads.iter().find(is_there).is_none().then_some(()));
    gone.with_context(|| format!("some of these threads still run: {threads:?}"))
}

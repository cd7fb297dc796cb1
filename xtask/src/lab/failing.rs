//! What a failure takes with it, and what running out of something does.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Experiment;
use super::apparatus::{asked, exhibit, guest, limit_descriptors, ms, server};
use super::notes::Notes;
use crate::harness::client::{APHORISMS, Came};
use crate::harness::{Client, PATIENCE, Server, wait_for};

pub(super) const PROCESSES: Experiment = Experiment {
    name: "processes",
    claim: "Processes do not disturb each other, and cost more than threads.",
    question: "4 clients have a worker each, and one worker aborts. Who goes on, if the workers are processes, and if they are threads? \
               And what do 5 processes cost in memory?",
    run: processes,
    why: "an abort ends a process, and with it all its threads. The parent sees a worker end and starts another. What ps calls RSS counts the pages \
          that all of them share once for each; PSS, which divides them, says what they cost.",
    read: &["zen-proto/src/server/supervisor.rs", "zen-threaded/src/workers.rs"],
    is_alone: false,
};

fn processes(notes: &mut Notes) -> Result<()> {
    let mut memory = Vec::new();
    for name in ["processes", "workers"] {
        notes.doing(name);
        let mut server = server(name, &["--abort-on", "Abort?"])?;
        let mut guests = (0..4).map(|_| guest(&server)).collect::<Result<Vec<_>>>()?;
        let (rss, pss) = (memory_of(&server, "Rss:")?, memory_of(&server, "Pss:")?);
        memory.push((rss, pss));
        let mut unlucky = guests.pop().context("there are four")?;
        unlucky.send(b"Abort?")?;
        ensure!(is_lost(&mut unlucky)?, "it does not abort");
        let left = guests.iter_mut().filter_map(|client| asked(client).ok()).count();
        let is_there = server.ended_within(Duration::from_millis(100)).is_none();
        if name == "processes" {
            ensure!(left == 3 && is_there, "{left} of 3 others are served on");
            guest(&server).context("a newcomer, by the worker's successor")?;
            notes.saw("4 processes: 1 aborts, the 3 others serve on, and a successor serves a newcomer");
        } else {
            ensure!(left == 0 && !is_there, "threads: {left} of 3 others are served on");
            notes.saw("4 threads: 1 aborts, and all clients are lost: the server has ended");
        }
    }
    let kib = |bytes: u64| format!("{} KiB", bytes / 1024);
    let [(rss, pss), (_, threaded)] = memory[..] else { unreachable!("two were measured") };
    notes.saw(format!("the processes' memory is {} by RSS, in fact (PSS) {}", kib(rss), kib(pss)));
    notes.saw(format!("the threads' memory is {} (PSS)", kib(threaded)));
    ensure!(pss < rss && threaded < pss, "processes were to cost more, but less than they seem to");
    Ok(())
}

pub(super) const UNBOUNDED: Experiment = Experiment {
    name: "unbounded",
    claim: "A thread per connection cannot be bounded, so it is unfit for use.",
    question: "200 silent clients come. Who still answers the next one: the exhibit without any bound, 4 workers, or a thread per connection with a \
               bound and a time-out?",
    run: unbounded,
    why: "none of the two bounds is enough alone. Without a bound the silent ones hold as many threads as they like; without a time-out they hold \
          the places there are for ever, and 4 workers are dead with 4. With both, newcomers are told so at once, and the places are \
          free again soon.",
    read: &["zen-threaded/examples/unbounded.rs", "zen-threaded/src/per_connection.rs"],
    is_alone: false,
};

fn unbounded(notes: &mut Notes) -> Result<()> {
    const SILENT: usize = 200;
    let crowd = |server: &Server, count: usize| (0..count).map(|_| server.client()).collect::<Result<Vec<_>>>();
    notes.doing("200 silent clients of the exhibit");
    let naive = exhibit("unbounded")?;
    let silent = crowd(&naive, SILENT)?;
    let time = asked(&mut naive.client()?)?;
    let threads = naive.usage().threads;
    notes.saw(format!(
        "the exhibit: {SILENT} silent clients hold {threads} threads; the next is answered in {}",
        ms(time)
    ));
    ensure!(threads > SILENT, "it was to start a thread for each");
    drop((silent, naive));

    notes.doing("4 silent clients of 4 workers");
    let workers = server("workers", &[])?;
    let silent = crowd(&workers, 4)?;
    let mut next = workers.client()?;
    next.send(APHORISMS[0].0)?;
    next.expect_silence(Duration::from_millis(300)).context("4 workers")?;
    notes.saw("4 workers: 4 silent clients, and the next hears nothing for as long as --idle-timeout lets them stay");
    drop((silent, workers));

    notes.doing("a bound and a time-out");
    let bounded = server("per-connection", &["--max-connections", "20", "--idle-timeout", "500ms"])?;
    let mut silent = crowd(&bounded, 20)?;
    // The last of them has been accepted when the one after it is turned away.
    let mut turned_away = bounded.client()?;
    turned_away.expect(b"Error: too many clients.").context("one over the bound")?;
    silent.iter_mut().try_for_each(Client::expect_end).context("a silent one, in the end")?;
    let time = asked(&mut bounded.client()?)?;
    let back = wait_for(PATIENCE, || (bounded.usage().threads <= 4).then_some(()));
    back.context("its threads do not end")?;
    notes.saw(format!(
        "20 places and a time-out: number 21 is told at once; 500 ms later all are free, an answer takes {}",
        ms(time)
    ));
    Ok(())
}

pub(super) const CRASH: Experiment = Experiment {
    name: "crash",
    claim: "Threads keep one client's failure from the others.",
    question: "while you are served by a thread, another panics, aborts, or the process has no descriptor left. Which of the three do you notice, and \
               which does a newcomer?",
    run: crash,
    why: "a panic unwinds one stack, and ends there. Everything else that can fail belongs to the process: its life, its memory, its table of \
          descriptors. Only another process has others.",
    read: &["zen-proto/src/server/answerer.rs", "zen-proto/src/server/accept.rs"],
    is_alone: false,
};

fn crash(notes: &mut Notes) -> Result<()> {
    const FAILURES: [&str; 4] = ["--panic-on", "Panic?", "--abort-on", "Abort?"];
    notes.doing("a thread panics");
    let threads = server("per-connection", &FAILURES)?;
    let mut bystander = guest(&threads)?;
    let mut unlucky = guest(&threads)?;
    unlucky.send(b"Panic?")?;
    ensure!(is_lost(&mut unlucky)?, "it does not panic");
    asked(&mut bystander).context("the bystander of a panic")?;
    guest(&threads).context("a newcomer after a panic")?;
    notes.saw("threads, a panic: its own client is lost, all others are served on");

    notes.doing("a threaded process has no descriptors");
    let limit = limit_descriptors(threads.pid(), Some(0))?;
    // The descriptor for the next client is in the hands of the accept() that sleeps already.
    let mut newcomers = (0..2).map(|_| asking(&threads)).collect::<Result<Vec<_>>>()?;
    let mut last = newcomers.pop().context("there are two")?;
    last.expect_silence(Duration::from_millis(300)).context("a newcomer without descriptors")?;
    asked(&mut bystander).context("the bystander without descriptors")?;
    limit_descriptors(threads.pid(), limit)?;
    last.expect(APHORISMS[0].1).context("the newcomer, with descriptors again")?;
    notes.saw("threads, no descriptors: who is here is served on, a newcomer waits at the door");

    notes.doing("a thread aborts");
    let mut unlucky = guest(&threads)?;
    unlucky.send(b"Abort?")?;
    ensure!(is_lost(&mut unlucky)? && is_lost(&mut bystander)?, "an abort was to take all with it");
    notes.saw("threads, an abort: everybody is lost");

    notes.doing("a worker process aborts, another has no descriptors");
    let processes = server("processes", &FAILURES)?;
    let mut bystander = guest(&processes)?;
    let mut unlucky = guest(&processes)?;
    unlucky.send(b"Abort?")?;
    ensure!(is_lost(&mut unlucky)?, "it does not abort");
    asked(&mut bystander).context("the bystander of another process")?;
    let worker = *processes.workers().last().context("there are workers")?;
    limit_descriptors(worker, Some(0))?;
    (0..6).try_for_each(|_| guest(&processes).map(drop)).context("newcomers, one worker being short")?;
    notes.saw("processes, an abort, and another without descriptors: all others are served, newcomers too");
    Ok(())
}

pub(super) const EMFILE: Experiment = Experiment {
    name: "emfile",
    claim: "A loop that tries again has survived running out of descriptors.",
    question: "no descriptor is left, and 3 clients ring. How much of a processor does the exhibit use, and how much zen-poll? Who is served?",
    run: emfile,
    why: "a client that cannot be accepted stays in the backlog, so the listener stays ready, and a level-triggered wait returns at once for \
          ever. zen-poll takes the listener out of its poller for 100 ms.",
    read: &["zen-poll/examples/accept_spin.rs", "zen-poll/src/acceptor.rs"],
    is_alone: true,
};

fn emfile(notes: &mut Notes) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(500);
    let mut used_by = |name: &str, server: Server| -> Result<Duration> {
        notes.doing(name);
        let mut bystander = guest(&server)?;
        let limit = limit_descriptors(server.pid(), Some(0))?;
        let mut waiting = (0..3).map(|_| asking(&server)).collect::<Result<Vec<_>>>()?;
        let (before, start) = (server.usage().cpu, Instant::now());
        thread::sleep(LOOK);
        let (used, time) = (server.usage().cpu.saturating_sub(before), start.elapsed());
        asked(&mut bystander).context("who is inside already")?;
        ensure!(waiting.iter_mut().all(|client| client.look().ok() == Some(Came::Nothing)), "somebody is served");
        limit_descriptors(server.pid(), limit)?;
        waiting.iter_mut().try_for_each(|client| client.expect(APHORISMS[0].1)).context("with descriptors again")?;
        notes.saw(format!("{name}: {} of processor in {}; nobody new is served, all are later", ms(used), ms(time)));
        Ok(used)
    };
    let naive = used_by("accept_spin", exhibit("accept_spin")?)?;
    let cured = used_by("zen-poll", server("poll", &[])?)?;
    ensure!(naive > LOOK / 8 && naive > cured * 5, "only the exhibit was to burn a processor");
    Ok(())
}

/// A client that has asked.
fn asking(server: &Server) -> Result<Client> {
    let mut client = server.client()?;
    client.send(APHORISMS[0].0)?;
    Ok(client)
}

/// Whether its connection ends without an answer, in whatever way.
fn is_lost(client: &mut Client) -> Result<bool> {
    Ok(matches!(client.read_some()?, Came::End | Came::Reset))
}

/// What smaps_rollup says of all its processes together.
fn memory_of(server: &Server, what: &str) -> Result<u64> {
    let mut bytes = 0;
    for pid in server.processes() {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("smaps_rollup")?;
        let line = rollup.lines().find_map(|line| line.strip_prefix(what)).context("it has such a line")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        bytes += kib * 1024;
    }
    Ok(bytes)
}

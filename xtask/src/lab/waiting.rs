//! What a blocking server does with its time: it waits, and for whom.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Experiment;
use super::apparatus::{all_ms, answer_times, asked, guest, ms, ratio, server, turns};
use super::notes::Notes;
use crate::harness::{PATIENCE, Server, strace};
use crate::workspace;

pub(super) const IDLE: Experiment = Experiment {
    name: "idle",
    claim: "With the single-threaded server, 7 % of the processor is idle.",
    question: "one client asks zen-single a question every 40 ms. What part of the time does the server sleep?",
    run: idle,
    why: "it is the other way round: the few percent are what it is busy. It waits in recv() for a client that thinks, and could serve hundreds \
          meanwhile, if only it knew how to wait for more than one.",
    read: &["zen-single/src/serve.rs"],
    is_alone: false,
};

fn idle(notes: &mut Notes) -> Result<()> {
    const QUESTIONS: u32 = 25;
    let server = server("single", &[])?;
    let mut client = guest(&server)?;
    let (start, before) = (Instant::now(), server.usage().cpu);
    for n in 1..=QUESTIONS {
        notes.doing(&format!("question {n} of {QUESTIONS}"));
        asked(&mut client)?;
        thread::sleep(Duration::from_millis(40));
    }
    let (time, busy) = (start.elapsed(), server.usage().cpu.saturating_sub(before));
    let idle = 100.0 * (1.0 - ratio(busy, time));
    notes.saw(format!("{QUESTIONS} answers in {}: {} on the processor", ms(time), ms(busy)));
    notes.saw(format!("the server was idle for {idle:.1} % of the time"));
    ensure!(idle > 90.0, "more than 90 % were promised");
    Ok(())
}

pub(super) const FIRST_RECV: Experiment = Experiment {
    name: "first-recv",
    claim: "The first recv() returns at once, because the third packet of the handshake carries data.",
    question: "one client writes as soon as it is connected, another 300 ms later. How long does the server's first recv() take with each?",
    run: first_recv,
    why: "accept() returns when the handshake is done, and that carries no data. recv() sleeps until there are some: no time if the client writes \
          at once, else as long as it takes its time.",
    read: &["zen-single/examples/ends_with.rs", "zen-single/src/serve.rs"],
    is_alone: true,
};

fn first_recv(notes: &mut Notes) -> Result<()> {
    let mut command = Command::new(strace()?);
    // An exhibit, as it has no tick: one accept() and one recv() are all that it does.
    command.args(["-T", "-e", "trace=accept4,recvfrom"]).arg(workspace::binary("examples/ends_with")?);
    let server = Server::run(command.args(["-p", "0"]))?;
    for pause in [Duration::ZERO, LATE] {
        notes.doing(&format!("a client that writes after {}", ms(pause)));
        let mut client = server.client()?;
        thread::sleep(pause);
        asked(&mut client)?;
    }
    let all = |log: &str| Some(first_receives(log)).filter(|times| times.len() >= 2);
    let times = server.wait_for_log(PATIENCE, all).with_context(|| server.log())?;
    notes.saw(format!("a client that writes at once: the first recv() takes {}", ms(times[0])));
    notes.saw(format!("one that writes {} later: accept() has returned, recv() takes {}", ms(LATE), ms(times[1])));
    ensure!(times[1] >= LATE * 4 / 5 && times[0] < times[1] / 2, "only the second was to wait");
    Ok(())
}

/// How long the first recvfrom after each accept4 took, from the `<0.000012>` at the end of strace's lines.
fn first_receives(log: &str) -> Vec<Duration> {
    let (mut times, mut is_first) = (Vec::new(), false);
    for line in log.lines() {
        if line.contains("accept4(") {
            is_first = true;
        } else if line.contains("recvfrom(") && is_first {
            let seconds = line.rsplit_once('<').and_then(|(_, end)| end.strip_suffix('>')?.parse().ok());
            times.extend(seconds.map(Duration::from_secs_f64));
            is_first = false;
        }
    }
    times
}

pub(super) const HOG: Experiment = Experiment {
    name: "hog",
    claim: "One silent client keeps everybody out of the single-threaded server, and time-outs hardly help.",
    question: "--idle-timeout is 300 ms. How long does the next client wait behind 1 silent one, behind 3, and behind 3 at an event loop?",
    run: hog,
    why: "true: the silent clients stand in the queue like everyone else, and each has its whole time-out (and the rest \
          of a tick of 250 ms) when its turn comes. An event loop waits for all at the same time, so they wait at the same time, too.",
    read: &["zen-single/src/serve.rs", "zen-poll/src/event_loop.rs"],
    is_alone: false,
};

fn hog(notes: &mut Notes) -> Result<()> {
    let mut wait_behind = |name: &str, hogs: usize| -> Result<Duration> {
        notes.doing(&format!("{hogs} silent clients before one that asks {name}"));
        let server = server(name, &["--idle-timeout", "300ms"])?;
        let silent = (0..hogs).map(|_| server.client()).collect::<Result<Vec<_>>>()?;
        let wait = asked(&mut server.client()?)?;
        drop(silent);
        notes.saw(format!("{name}: {} behind {hogs} silent", ms(wait)));
        Ok(wait)
    };
    let (one, three) = (wait_behind("single", 1)?, wait_behind("single", 3)?);
    let event_loop = wait_behind("poll", 3)?;
    ensure!(one >= LATE && three >= LATE * 3 && three > one * 2, "each silent client was to cost a time-out");
    ensure!(event_loop < one / 2, "the event loop was not to notice them");
    Ok(())
}

pub(super) const WORKERS: Experiment = Experiment {
    name: "workers",
    claim: "With 4 threads and a delay in the answer, clients are served in parallel.",
    question: "zen-threaded has 4 workers, an answer takes 200 ms. When do 5 clients that ask at once have theirs? \
               And if the 200 ms are no sleep but work, how much of a processor does each of 4 get?",
    run: workers,
    why: "four sleep at the same time; the fifth is in the backlog for a whole turn. Sleeping costs no processor, so the ancestor's delay \
          shows threads at their best: those that work share what processors there are, and 4 threads have no more of those than 2. (--burn \
          goes by the clock: who gets half a processor does half the work in that time.)",
    read: &["zen-threaded/src/workers.rs", "zen-proto/src/server/answerer.rs"],
    is_alone: true,
};

fn workers(notes: &mut Notes) -> Result<()> {
    let delay = Duration::from_millis(200);
    notes.doing("5 clients of 4 workers that sleep");
    let times = answer_times(server("workers", &["--delay", "200ms"])?.address(), 5)?;
    let turns = turns(&times, delay);
    notes.saw(format!("--delay 200ms: answers after {}", all_ms(&times)));
    notes.doing("4 clients of 4 workers that spin");
    let burning = server("workers", &["--burn", "200ms"])?;
    let (before, start) = (burning.usage().cpu, Instant::now());
    answer_times(burning.address(), 4)?;
    let (time, used) = (start.elapsed(), burning.usage().cpu.saturating_sub(before));
    let processors = thread::available_parallelism()?.get();
    notes.saw(format!(
        "--burn 200ms: 4 workers got {} of processor in {}, together {:.1} of the {processors} there are",
        ms(used),
        ms(time),
        ratio(used, time)
    ));
    ensure!(turns == [4, 1], "answers came in turns of {turns:?}");
    let most = u32::try_from(processors.min(4))?;
    ensure!(!used.is_zero() && used < time * most * 11 / 10, "no more than the processors there are");
    Ok(())
}

/// Late enough to be told from at once; also the time-out of `hog`.
const LATE: Duration = Duration::from_millis(300);

//! Many clients and few threads: who waits for whom.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Experiment;
use super::apparatus::{all_ms, answer_times, asked, at_once, exhibit, guest, ms, ratio, server, turns};
use super::notes::Notes;
use crate::harness::client::APHORISMS;
use crate::harness::{Client, Server};

pub(super) const STALL: Experiment = Experiment {
    name: "stall",
    claim: "An event loop serves many clients at once in one thread.",
    question: "an answer takes 200 ms of sleep. When do 4 clients that ask at once have theirs from one loop, from two, and from tasks that await \
               their answers, or have them worked out elsewhere?",
    run: stall,
    why: "the loop waits for all at once, but it thinks for one at a time: while it does, everybody waits. More loops are more that think; \
          --offload takes the thinking to a pool of threads, and the loop goes on. --await needs no other thread: the task is suspended until its timer \
          ends, which is possible only where the wait itself can be awaited.",
    read: &["zen-async/examples/blocking_call.rs", "zen-async/src/on_smol.rs", "zen-poll/src/event_loop.rs"],
    is_alone: true,
};

fn stall(notes: &mut Notes) -> Result<()> {
    let delay = Duration::from_millis(200);
    let slow = ["--delay", "200ms"];
    let offloaded = [&slow[..], &["--offload"]].concat();
    let awaited = [&slow[..], &["--await"]].concat();
    let rows: [(&str, Server, &[usize]); 5] = [
        ("one loop", server("poll", &slow)?, &[1, 1, 1, 1]),
        ("two loops", server("poll-loops", &slow)?, &[2, 2]),
        ("tasks that block (blocking_call)", exhibit("blocking_call")?, &[1, 1, 1, 1]),
        ("tasks with --offload", server("smol", &offloaded)?, &[4]),
        ("tasks with --await", server("smol", &awaited)?, &[4]),
    ];
    let mut wrong = Vec::new();
    for (name, server, expected) in rows {
        notes.doing(name);
        let times = answer_times(server.address(), 4)?;
        notes.saw(format!("{name}: {}", all_ms(&times)));
        let turns = turns(&times, delay);
        if turns != expected {
            wrong.push(format!("{name}: turns of {turns:?}, not {expected:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

pub(super) const BEST_OF_BOTH: Experiment = Experiment {
    name: "best-of-both",
    claim: "Threads or processes that run event loops give the best of both worlds.",
    question: "how many answers a second do 2 loops give, for 1 loop's 100? First if an answer costs nothing, then if it takes 10 ms of spinning, or of sleep?",
    run: best_of_both,
    why: "a second loop helps when the first is full, and when it gets its share of the clients. Asleep, two loops do twice as much (where \
          the ranges overlap all the same, the machine had other things to do); spinning, only if there is a second processor \
          to be had; and for light work the clients and the kernel need the processors themselves, so there is little to share out. Processes race for their clients: their share is a matter of luck (see `spread`).",
    read: &["zen-poll/src/acceptor.rs", "zen-poll/src/event_loop.rs"],
    is_alone: true,
};

fn best_of_both(notes: &mut Notes) -> Result<()> {
    rates_of(notes, "light work", &[])?;
    // Whether there are two processors to be had just now is not for a test to say.
    rates_of(notes, "10 ms of spinning", &["--burn", "10ms"])?;
    let sleeping = rates_of(notes, "10 ms of sleep", &["--delay", "10ms"])?;
    ensure!(sleeping > 1.4, "two loops were to sleep for twice as many");
    Ok(())
}

/// Answers a second of one loop, two, and two in processes; how many times one loop's answers two loops gave, at
/// their best.
fn rates_of(notes: &mut Notes, work: &str, arguments: &[&str]) -> Result<f64> {
    const NAMES: [&str; 3] = ["poll", "poll-loops", "poll-processes"];
    const ROUNDS: usize = 3;
    let servers = NAMES.iter().map(|name| server(name, arguments)).collect::<Result<Vec<_>>>()?;
    let mut rates = vec![Vec::new(); NAMES.len()];
    // In turns, so that whatever else the machine does hits all of them.
    for round in 1..=ROUNDS {
        for (name, (server, rates)) in NAMES.iter().zip(servers.iter().zip(&mut rates)) {
            notes.doing(&format!("{work}: {name}, round {round} of {ROUNDS}"));
            rates.push(rate(server)?);
        }
    }
    rates.iter_mut().for_each(|rates| rates.sort_by(f64::total_cmp));
    // The best round is the one that the rest of the machine disturbed least.
    let (worst, best) = (|rates: &[f64]| rates[0], |rates: &[f64]| rates[ROUNDS - 1]);
    let range = |rates: &[f64]| format!("{:.0} to {:.0} answers a second", worst(rates), best(rates));
    let one = &rates[0];
    notes.saw(format!("{work}, one loop: {}", range(one)));
    for (name, these) in NAMES.iter().zip(&rates).skip(1) {
        let gain = best(these) / best(one);
        // Ranges that overlap, or a few percent, are no difference that anybody could find again.
        let overlaps = worst(these) <= best(one) && worst(one) <= best(these);
        let is_none = overlaps || (0.9..1.1).contains(&gain);
        let verdict = if is_none { "no difference".to_owned() } else { format!("{gain:.1} times as many") };
        notes.saw(format!("{work}, {name}: {}: {verdict}", range(these)));
    }
    Ok(best(&rates[1]) / best(one))
}

/// Answers a second to 4 clients that ask as fast as they can.
fn rate(server: &Server) -> Result<f64> {
    const LOOK: Duration = Duration::from_millis(250);
    let mut guests = (0..4).map(|_| guest(server)).collect::<Result<Vec<_>>>()?;
    let (count, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let asking = |client: &mut Client| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                asked(client)?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let start = Instant::now();
        let threads: Vec<_> = guests.iter_mut().map(|client| scope.spawn(move || asking(client))).collect();
        thread::sleep(LOOK);
        let rate = count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().ok().context("a client panicked")??;
        }
        Ok(rate)
    })
}

pub(super) const STARVE: Experiment = Experiment {
    name: "starve",
    claim: "Coroutines share the thread fairly by themselves.",
    question: "two clients send 5,000 questions each without waiting, at 100 µs an answer. A third asks one. How long does it wait, if coroutines yield \
               only when they must, and how long in zen-async?",
    run: starve,
    why: "an .await gives the thread away only if it has to wait. A client that is always ready never has to, so its coroutine goes on until its questions \
          are out. zen-async goes by the reactor after each chunk, which is a turn of bounded length.",
    read: &["zen-async/examples/never_yields.rs", "zen-async/src/on_smol.rs"],
    is_alone: true,
};

fn starve(notes: &mut Notes) -> Result<()> {
    const QUESTIONS: usize = 5_000;
    let mut wait = |name: &str, server: Server| -> Result<Duration> {
        notes.doing(name);
        let mut third = guest(&server)?;
        let waits = at_once(3, |n| {
            if n > 0 {
                let mut busy = guest(&server)?;
                busy.send(&APHORISMS[2].0.repeat(QUESTIONS))?;
                busy.expect(&APHORISMS[2].1.repeat(QUESTIONS))?;
                return Ok(Duration::ZERO);
            }
            thread::sleep(Duration::from_millis(150));
            asked(&mut server.client()?)
        })?;
        // Those who were there before are well again.
        third.ask_all()?;
        notes.saw(format!("{name}: the third waits {}", ms(waits[0])));
        Ok(waits[0])
    };
    let starving = wait("never_yields", exhibit("never_yields")?)?;
    let fair = wait("zen-async", server("smol", &["--burn", "100us"])?)?;
    notes.saw(format!("that is {:.0} times as long", ratio(starving, fair)));
    ensure!(starving > fair * 3, "the exhibit was to starve it");
    Ok(())
}

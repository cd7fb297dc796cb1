//! Many clients and few threads: which client waits for which.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Experiment;
use super::fixture::{all_ms, answer_times, faulty_example, ms, ratio, server, time_answer};
use super::notes::{Notes, Text};
use crate::harness::client::APHORISMS;
use crate::harness::metrics::scrape;
use crate::harness::{Client, Server, WAIT_LIMIT, at_once};
use crate::matrix::parallel::turns;

pub(super) const STALL: Experiment = Experiment {
    name: "stall",
    claim: Text(
        "An event loop serves many clients together in one thread.",
        "事件循环在一个线程里同时服务许多客户端。",
    ),
    question: Text(
        "an answer takes 200 ms of sleep. When do 4 clients that ask together have theirs from one loop, from two, \
         and from tasks that await their answers, or leave them to a thread pool?",
        "一个回答要睡 200 毫秒。4 个客户端同时提问：一个循环、两个循环、会 await 的任务、把活交给线程池的任务，各\
         在什么时候给出回答？",
    ),
    run: stall,
    why: Text(
        "the loop waits for all clients together, but it works for one at a time, and meanwhile all others wait. \
         More loops work side by side. --offload takes the work to a pool of threads. --await needs no other \
         thread: the task is suspended until its timer ends, which is possible only where the wait itself can be \
         awaited.",
        "循环同时等待所有客户端，却一次只为一个干活，其间其他的都在等。多几个循环就多几个同时干活。--offload 把活\
         交给线程池。--await 不需要别的线程：任务挂起到定时器结束，但前提是这种等待本身可以 await。",
    ),
    read: &["zen-async/examples/blocking_call.rs", "zen-async/src/on_smol.rs", "zen-poll/src/event_loop.rs"],
    is_alone: true,
    is_slow: true,
};

fn stall(notes: &mut Notes) -> Result<()> {
    let delay = Duration::from_millis(200);
    let slow = ["--delay", "200ms"];
    let offloaded = [&slow[..], &["--offload"]].concat();
    let awaited = [&slow[..], &["--await"]].concat();
    let rows: [(&str, Server, &[usize]); 5] = [
        ("one loop", server("poll", &slow)?, &[1, 1, 1, 1]),
        ("two loops", server("poll-loops", &slow)?, &[2, 2]),
        ("tasks that block (blocking_call)", faulty_example("blocking_call")?, &[1, 1, 1, 1]),
        ("tasks with --offload", server("smol", &offloaded)?, &[4]),
        ("tasks with --await", server("smol", &awaited)?, &[4]),
    ];
    let mut wrong = Vec::new();
    for (name, server, expected) in rows {
        notes.doing(name);
        let times = answer_times(server.address(), 4)?;
        saw!(notes, "{name}: {times}", "{name}：{times}", times = all_ms(&times));
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
    claim: Text(
        "Threads or processes that run event loops give the best of both worlds.",
        "用线程或进程来跑事件循环，可兼得两者之长。",
    ),
    question: Text(
        "how many answers a second do 2 loops give, for 1 loop's 100? First if an answer costs nothing, then if \
         it takes 10 ms of computing, or of sleep?",
        "1 个循环每秒 100 个回答时，2 个循环给多少：先是回答不花时间，再是每个回答要计算 10 毫秒，或睡 10 毫秒？",
    ),
    run: best_of_both,
    why: Text(
        "a second loop helps when the first is always busy and the second gets its share of the clients. If answers \
         sleep, two loops give twice as many, unless the machine is busy otherwise. If answers compute, that takes a \
         second free processor. For light work, the clients and the kernel need the processors themselves. Processes \
         race for clients, so their shares are random (see `spread`).",
        "第一个循环已满、而第二个又分得到客户端时，它才有用。睡眠型的工作，两个循环能做两倍，除非机器正忙别的。计\
         算型的，要有空闲的第二个处理器才行。工作很轻时，客户端和内核自己就要用处理器。多个进程要争抢客户端：份额\
         全凭运气（见 `spread`）。",
    ),
    read: &["zen-poll/src/acceptor.rs", "zen-poll/src/event_loop.rs"],
    is_alone: true,
    is_slow: true,
};

fn best_of_both(notes: &mut Notes) -> Result<()> {
    rates_of(notes, "light work", &[])?;
    // This ratio is not tested, because it depends on whether a second processor is free now.
    rates_of(notes, "10 ms of computing", &["--burn", "10ms"])?;
    let sleeping = rates_of(notes, "10 ms of sleep", &["--delay", "10ms"])?;
    ensure!(sleeping > 1.4, "expected two loops to give more than 1.4 times the answers of one");
    Ok(())
}

/// Measures the answers a second of one loop, of two, and of two in processes. Returns the ratio of two loops to one,
/// by the best round of each.
fn rates_of(notes: &mut Notes, work: &str, arguments: &[&str]) -> Result<f64> {
    const NAMES: [&str; 3] = ["poll", "poll-loops", "poll-processes"];
    const ROUNDS: usize = 3;
    let servers = NAMES.iter().map(|name| server(name, arguments)).collect::<Result<Vec<_>>>()?;
    let mut rates = vec![Vec::new(); NAMES.len()];
    // In turns, so that other programs on the machine disturb all of them alike.
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
    saw!(notes, "{work}, one loop: {range}", "{work}，一个循环：{range}", range = range(one));
    for (name, these) in NAMES.iter().zip(&rates).skip(1) {
        let gain = best(these) / best(one);
        // Ranges that overlap, or a few percent, are no difference that could be reproduced.
        let overlaps = worst(these) <= best(one) && worst(one) <= best(these);
        let is_none = overlaps || (0.9..1.1).contains(&gain);
        let verdict = if is_none { "no difference".to_owned() } else { format!("{gain:.1} times as many") };
        saw!(notes, "{work}, {name}: {range}: {verdict}", "{work}，{name}：{range}：{verdict}", range = range(these));
    }
    Ok(best(&rates[1]) / best(one))
}

/// Returns the answers a second to 4 clients that ask as fast as they can.
fn rate(server: &Server) -> Result<f64> {
    const MEASURED_TIME: Duration = Duration::from_millis(250);
    let mut clients = server.served_clients(4)?;
    let (count, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let asking = |client: &mut Client| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                time_answer(client)?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let start = Instant::now();
        let threads: Vec<_> = clients.iter_mut().map(|client| scope.spawn(move || asking(client))).collect();
        thread::sleep(MEASURED_TIME);
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
    claim: Text("Coroutines share the thread fairly by themselves.", "协程会自动公平地分享线程。"),
    question: Text(
        "two clients send 5,000 questions each without waiting, at 100 µs an answer. A third asks one. How long \
         does it wait, if coroutines yield only when they must, and how long in zen-async?",
        "两个客户端不等回答，各发 5,000 个问题，每个回答 100 微秒。第三个只问一个。协程只在不得已时才让出，它要等\
         多久？在 zen-async 里又要多久？",
    ),
    run: starve,
    why: Text(
        "an .await yields the thread only if it has to wait. A client that is always ready never makes it wait, so \
         its coroutine runs until all its questions are answered. zen-async yields to the reactor after each \
         chunk, which is a turn of bounded length.",
        "只有真需要等待时，.await 才会让出线程。客户端总是就绪，它的协程就一直跑到问题答完。zen-async 每处理一块数\
         据就让给反应器一次，每轮长度有限。",
    ),
    read: &["zen-async/examples/never_yields.rs", "zen-async/src/on_smol.rs"],
    is_alone: true,
    is_slow: true,
};

fn starve(notes: &mut Notes) -> Result<()> {
    const QUESTIONS: usize = 5_000;
    let mut wait = |name: &str, server: Server| -> Result<Duration> {
        notes.doing(name);
        let mut third = server.served_client()?;
        let waits = at_once(3, |n| {
            if n > 0 {
                let mut busy = server.served_client()?;
                busy.send(&APHORISMS[2].0.repeat(QUESTIONS))?;
                busy.expect(&APHORISMS[2].1.repeat(QUESTIONS))?;
                return Ok(Duration::ZERO);
            }
            thread::sleep(Duration::from_millis(150));
            time_answer(&mut server.client()?)
        })?;
        // A client from before the load is served again.
        third.ask_all()?;
        saw!(notes, "{name}: the third waits {wait}", "{name}：第三个等了 {wait}", wait = ms(waits[0]));
        Ok(waits[0])
    };
    let starving = wait("never_yields", faulty_example("never_yields")?)?;
    let fair = wait("zen-async", server("smol", &["--burn", "100us"])?)?;
    saw!(notes, "that is {times:.0} times as long", "前者是后者的 {times:.0} 倍", times = ratio(starving, fair));
    ensure!(starving > fair * 3, "expected never_yields to keep the third waiting 3 times as long");
    Ok(())
}

pub(super) const LOST_UPDATE: Experiment = Experiment {
    name: "lost-update",
    claim: Text("There is one thread, so there are no races.", "只有一个线程，所以没有竞争条件。"),
    question: Text(
        "8 clients ask 25 questions each. All tasks run in one thread, and a counter is read before an `.await` and \
         written after it. What does it count?",
        "8 个客户端各问 25 个问题。所有任务都在一个线程里运行，计数在 `.await` 之前读出，在其后写回。它会数到几？",
    ),
    run: lost_update,
    why: Text(
        "an `.await` lets other tasks run. All 8 read the same number, wait, and write that number plus one: 7 \
         updates of 8 are lost. Between two awaits no other task runs. So an operation that must not \
         be interrupted belongs there, or under a lock that is held across the await.",
        "`.await` 让别的任务运行。8 个任务读到同一个数，等待，然后都写回这个数加一：8 次更新丢了 7 次。任务只在两个 await 之间独占线程；\
         不可分割的操作应放在那里，或者用一把跨越 await 持有的锁保护。",
    ),
    read: &["zen-async/examples/lost_update.rs"],
    is_alone: false,
    is_slow: false,
};

fn lost_update(notes: &mut Notes) -> Result<()> {
    const CLIENTS: usize = 8;
    const QUESTIONS: usize = 25;
    let all_ask = |server: &Server| {
        at_once(CLIENTS, |_| {
            let mut client = server.client()?;
            (0..QUESTIONS).try_for_each(|_| time_answer(&mut client).map(drop))
        })
    };
    let faulty = faulty_example("lost_update")?;
    all_ask(&faulty)?;
    let counters = |log: &str| -> Option<Vec<usize>> {
        let all: Vec<usize> =
            log.lines().filter_map(|line| line.strip_prefix("questions counted: ")?.parse().ok()).collect();
        (all.len() == CLIENTS).then_some(all)
    };
    let counter =
        faulty.wait_for_log(WAIT_LIMIT, counters).and_then(|all| all.into_iter().max()).context("the counters")?;
    let questions = CLIENTS * QUESTIONS;
    saw!(
        notes,
        "lost_update: {questions} questions were answered, the counter says {counter}",
        "lost_update：回答了 {questions} 个问题，计数却是 {counter}"
    );
    ensure!(counter < questions / 2, "expected more than half of the updates to be lost");

    let fixed = server("smol", &["--metrics", "0", "--delay", "2ms", "--await"])?;
    all_ask(&fixed)?;
    let count = scrape(&fixed)?.get("zen_questions_total").copied().context("zen_questions_total")?;
    saw!(
        notes,
        "zen-async, which counts with no await in between: zen_questions_total is {count}",
        "zen-async 计数时中间没有 await：zen_questions_total 为 {count}"
    );
    ensure!(count == questions as f64, "expected {questions} in zen_questions_total");
    Ok(())
}

//! Blocking servers: how long they wait, and for which client.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Experiment;
use super::fixture::{all_ms, answer_times, ms, ratio, server, time_answer};
use super::notes::{Notes, Text};
use crate::harness::{Server, WAIT_LIMIT, strace};
use crate::matrix::parallel::turns;
use crate::workspace;

pub(super) const IDLE: Experiment = Experiment {
    name: "idle",
    claim: Text(
        "With the single-threaded server, 7 % of the processor is idle.",
        "单线程服务器运行时，处理器有 7 % 空闲。",
    ),
    question: Text(
        "one client asks zen-single a question every 40 ms. What part of the time does the server sleep?",
        "一个客户端每 40 毫秒向 zen-single 提一个问题。服务器有多少时间在睡眠？",
    ),
    run: idle,
    why: Text(
        "it is the other way round: the server is busy for a few percent. It waits in recv() for a client that \
         thinks, and could serve hundreds meanwhile, if only it could wait for more than one.",
        "恰好相反：服务器忙碌的只有百分之几。它在 recv() 里等一个正在思考的客户端；要是能同时等多个，这段时间足以\
         服务几百个。",
    ),
    read: &["zen-single/src/serve.rs"],
    is_alone: false,
    is_slow: false,
};

fn idle(notes: &mut Notes) -> Result<()> {
    const QUESTIONS: u32 = 25;
    let server = server("single", &[])?;
    let mut client = server.served_client()?;
    let (start, before) = (Instant::now(), server.usage().cpu);
    for n in 1..=QUESTIONS {
        notes.doing(&format!("question {n} of {QUESTIONS}"));
        time_answer(&mut client)?;
        thread::sleep(Duration::from_millis(40));
    }
    let (time, busy) = (start.elapsed(), server.usage().cpu.saturating_sub(before));
    let idle = 100.0 * (1.0 - ratio(busy, time));
    saw!(
        notes,
        "{QUESTIONS} answers in {time}: {busy} on the processor",
        "{time} 内 {QUESTIONS} 个回答：占用处理器 {busy}",
        time = ms(time),
        busy = ms(busy),
    );
    saw!(notes, "the server was idle for {idle:.1} % of the time", "服务器有 {idle:.1} % 的时间空闲");
    ensure!(idle > 90.0, "expected the server to be idle for more than 90 % of the time");
    Ok(())
}

pub(super) const FIRST_RECV: Experiment = Experiment {
    name: "first-recv",
    claim: Text(
        "The first recv() returns immediately, because the third packet of the handshake carries data.",
        "第一次 recv() 立即返回，因为握手的第三个包带有数据。",
    ),
    question: Text(
        "one client writes as soon as it is connected, another 300 ms later. How long does the server's first \
         recv() take with each?",
        "一个客户端连上就写，另一个过 300 毫秒才写。服务器的第一次 recv() 各要多久？",
    ),
    run: first_recv,
    why: Text(
        "accept() returns when the handshake is done, and that carries no data. recv() sleeps until data come: \
         not at all if the client writes immediately, else until it writes.",
        "握手完成 accept() 就返回，而握手不带数据。recv() 一直睡到数据到来：客户端马上写就不用睡，否则睡到它写为止\
         。",
    ),
    read: &["zen-single/examples/ends_with.rs", "zen-single/src/serve.rs"],
    is_alone: true,
    is_slow: false,
};

fn first_recv(notes: &mut Notes) -> Result<()> {
    let mut command = Command::new(strace()?);
    // A faulty example, because it has no tick: its calls return only when a client connects or writes.
    command.args(["-T", "-e", "trace=accept4,recvfrom"]).arg(workspace::binary("examples/ends_with")?);
    let server = Server::run(command.args(["-p", "0"]))?;
    for pause in [Duration::ZERO, LATE] {
        notes.doing(&format!("a client that writes after {}", ms(pause)));
        let mut client = server.client()?;
        thread::sleep(pause);
        time_answer(&mut client)?;
    }
    let all = |log: &str| Some(first_receives(log)).filter(|times| times.len() >= 2);
    let times = server.wait_for_log(WAIT_LIMIT, all).with_context(|| server.log())?;
    saw!(
        notes,
        "a client that writes immediately: the first recv() takes {time}",
        "客户端马上写：第一次 recv() 用时 {time}",
        time = ms(times[0]),
    );
    saw!(
        notes,
        "one that writes {late} later: accept() has returned, recv() takes {time}",
        "过 {late} 才写：accept() 已返回，recv() 用时 {time}",
        late = ms(LATE),
        time = ms(times[1]),
    );
    ensure!(times[1] >= LATE * 4 / 5 && times[0] < times[1] / 2, "expected only the second recv() to wait");
    Ok(())
}

/// Returns how long the first recvfrom after each accept4 took, from the `<0.000012>` at the end of strace's lines.
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
    claim: Text(
        "One silent client keeps all others out of the single-threaded server, and timeouts hardly help.",
        "一个沉默的客户端就能把所有人挡在单线程服务器之外，超时也帮不了多少。",
    ),
    question: Text(
        "--idle-timeout is 300 ms. How long does the next client wait behind 1 silent one, behind 3, and behind 3 \
         at an event loop?",
        "--idle-timeout 是 300 毫秒。前面有 1 个、3 个沉默客户端时，下一个各等多久？事件循环前面有 3 个时呢？",
    ),
    run: hog,
    why: Text(
        "true: the silent clients wait in the backlog like all others, and each takes its whole timeout (and the \
         rest of a tick of 250 ms) when its turn comes. An event loop waits for all of them at the same time.",
        "确实如此：沉默的客户端也在 backlog 里排队，轮到时各占满整个超时（外加 250 毫秒 tick 的剩余部分）。事件循\
         环则同时等待它们全部。",
    ),
    read: &["zen-single/src/serve.rs", "zen-poll/src/event_loop.rs"],
    is_alone: false,
    is_slow: false,
};

fn hog(notes: &mut Notes) -> Result<()> {
    let mut wait_behind = |name: &str, hogs: usize| -> Result<Duration> {
        notes.doing(&format!("{hogs} silent clients before one that asks {name}"));
        let server = server(name, &["--idle-timeout", "300ms"])?;
        let silent = server.clients(hogs)?;
        let wait = time_answer(&mut server.client()?)?;
        drop(silent);
        saw!(
            notes,
            "{name}: {wait} behind {hogs} silent",
            "{name}：前面 {hogs} 个沉默的，等了 {wait}",
            wait = ms(wait),
        );
        Ok(wait)
    };
    let (one, three) = (wait_behind("single", 1)?, wait_behind("single", 3)?);
    let event_loop = wait_behind("poll", 3)?;
    ensure!(
        one >= LATE && three >= LATE * 3 && three > one * 2,
        "expected a wait of one timeout for each silent client"
    );
    ensure!(event_loop < one / 2, "expected the event loop to answer without waiting for silent clients");
    Ok(())
}

pub(super) const WORKERS: Experiment = Experiment {
    name: "workers",
    claim: Text(
        "With 4 threads and a delay in the answer, clients are served in parallel.",
        "4 个线程，回答里有延时，客户端就得到并行服务。",
    ),
    question: Text(
        "zen-threaded has 4 workers, an answer takes 200 ms. When do 5 clients that ask together have theirs? And \
         if the 200 ms are not sleep but computing, how much of a processor does each of 4 get?",
        "zen-threaded 有 4 个 worker，一个回答要 200 毫秒。5 个客户端同时提问，各在什么时候得到？如果 200 毫秒不是\
         睡眠而是计算，4 个 worker 各得到多少处理器？",
    ),
    run: workers,
    why: Text(
        "four sleep at the same time; the fifth client waits in the backlog until a worker is free. Sleeping \
         costs no processor, so a delay shows threads at their best: workers that compute share the available \
         processors. (--burn goes by the clock: a worker that gets half a processor does half the work \
         in that time.)",
        "四个同时睡；第五个客户端在 backlog 里等到有 worker 空出来。睡眠不占处理器，所以延时展示的是线程最好\
         的一面：真要计算，worker 们只能分享现有的处理器。（--burn 按时钟计：只得到半个处理器的 worker，在这段时间\
         里只做一半的活。）",
    ),
    read: &["zen-threaded/src/workers.rs", "zen-proto/src/server/answerer.rs"],
    is_alone: true,
    is_slow: true,
};

fn workers(notes: &mut Notes) -> Result<()> {
    let delay = Duration::from_millis(200);
    notes.doing("5 clients of 4 workers that sleep");
    let times = answer_times(server("workers", &["--delay", "200ms"])?.address(), 5)?;
    let turns = turns(&times, delay);
    saw!(notes, "--delay 200ms: answers after {times}", "--delay 200ms：回答时间 {times}", times = all_ms(&times));
    notes.doing("4 clients of 4 workers that compute");
    let burning = server("workers", &["--burn", "200ms"])?;
    let (before, start) = (burning.usage().cpu, Instant::now());
    answer_times(burning.address(), 4)?;
    let (time, used) = (start.elapsed(), burning.usage().cpu.saturating_sub(before));
    let processors = thread::available_parallelism()?.get();
    saw!(
        notes,
        "--burn 200ms: 4 workers got {used} of processor in {time}, together {share:.1} of {processors} processors",
        "--burn 200ms：4 个 worker 在 {time} 里得到处理器 {used}，合计 {share:.1} 个（共 {processors} 个）",
        share = ratio(used, time),
        used = ms(used),
        time = ms(time),
    );
    ensure!(turns == [4, 1], "expected 4 answers and then 1, but they came in groups of {turns:?}");
    let most = u32::try_from(processors.min(4))?;
    ensure!(!used.is_zero() && used < time * most * 11 / 10, "expected at most the time of {most} processors");
    Ok(())
}

/// A pause that clearly differs from none; it is also the idle timeout in `hog`.
const LATE: Duration = Duration::from_millis(300);

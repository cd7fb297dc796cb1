//! What an answer costs under different architectures, compared with the noise of the measurement.

use anyhow::{Context, Result, ensure};

use super::Experiment;
use super::fixture::{Descriptors, cpu_of, idle_clients, server};
use super::loads::load;
use super::notes::{Notes, Text};
use crate::harness::Server;
use crate::matrix::syscalls;
use crate::servers;

pub(super) const ASYNC_FASTER: Experiment = Experiment {
    name: "async-faster",
    claim: Text("Async is faster than threads.", "异步比线程快。"),
    question: Text(
        "1, 16 or 256 clients ask as fast as they can, or 16 do among 5,000 idle ones. What does an answer cost \
         in processor time with threads, with an event loop, with tasks? And by how much do two runs of the same \
         server differ?",
        "1、16 或 256 个客户端尽快提问，或者 16 个在忙、另有 5,000 个空闲。线程、事件循环、异步任务，每个回答各花多少处理器时间？\
         同一个服务器跑两次又相差多少？",
    ),
    run: async_faster,
    why: Text(
        "every architecture makes the same two system calls for an answer; loop and tasks add a wait, threads a \
         switch. With one or 16 busy clients that is little: often less than the noise, and \
         such a difference means nothing. With many, one wait finds several ready clients and shares its cost among \
         them, while threads must be switched. What async saves in any case is memory for idle clients.",
        "每种架构为一个回答都做同样两次系统调用；循环和任务多一次等待，线程多一次切换。只有 1 个或 16 个忙碌客户端时，这差别很小：\
         往往小于同一服务器两次运行之差，那就等于没有差别。客户端多时，一次等待能发现好几个就绪的，代价得以摊薄，线程则必须切换。\
         异步无论如何能省下的，是空闲客户端的内存。",
    ),
    read: &["zen-threaded/src/per_connection.rs", "zen-async/src/on_smol.rs", "zen-poll/src/event_loop.rs"],
    is_alone: true,
    is_slow: true,
};

fn async_faster(notes: &mut Notes) -> Result<()> {
    // The first server is measured twice. The difference between its two figures is noise.
    const NAMES: [&str; 4] = ["per-connection", "poll", "smol", "per-connection"];
    const ROUNDS: usize = 2;
    let idle: usize = if notes.is_brief() { 500 } else { 5_000 };
    let _raised = Descriptors::raise(idle as u64 + 500)?;
    let most = (idle + 300).to_string();
    for (busy, idle) in [(1, 0), (16, 0), (256, 0), (16, idle)] {
        let mut costs = vec![Vec::new(); NAMES.len()];
        for (name, costs) in NAMES.iter().zip(&mut costs) {
            let server = server(name, &["--max-connections", &most])?;
            let silent = idle_clients(&server, idle)?;
            for round in 1..=ROUNDS {
                notes.doing(&format!("{busy} busy, {idle} idle: {name}, round {round}"));
                costs.push(cost(&server, busy).context(*name)?);
            }
            drop(silent);
        }
        let best = |costs: &[f64]| costs.iter().copied().fold(f64::INFINITY, f64::min);
        let [threads, event_loop, tasks, again] = [0, 1, 2, 3].map(|n| best(&costs[n]));
        saw!(
            notes,
            "{busy} busy, {idle} idle, µs of processor for an answer: threads {threads:.1}, and again {again:.1}; \
             loop {event_loop:.1}; tasks {tasks:.1}",
            "{busy} 个忙，{idle} 个空闲，每个回答的处理器时间（微秒）：线程 {threads:.1}，再测 {again:.1}；\
             事件循环 {event_loop:.1}；任务 {tasks:.1}"
        );
        if idle == 0 && busy <= 16 {
            ensure!(threads < tasks * 5.0 && tasks < threads * 5.0, "threads and tasks differ by a factor of 5");
        }
    }
    Ok(())
}

pub(super) const COMPLETION: Experiment = Experiment {
    name: "completion",
    claim: Text(
        "io_uring is 40 % faster than epoll. Or: it is slower.",
        "io_uring 比 epoll 快 40%。也有人说：反而更慢。",
    ),
    question: Text(
        "the same protocol with epoll and with io_uring, for 1 client, for 16 and for 1,000 that ask as fast as they \
         can. How many system calls does an answer take, and how much processor time? Is what they differ by more \
         than two runs of one server differ by?",
        "同一协议，一个用 epoll，一个用 io_uring，分别有 1 个、16 个、1,000 个客户端尽快提问。每个回答要多少次系统调用、多少处理器时间？\
         两者之差，是否大过同一个服务器跑两次之差？",
    ),
    run: completion,
    why: Text(
        "io_uring saves calls: one call hands over the requests of all clients and sleeps, where epoll needs a recv() \
         and a send() for each answer, and the waits. The work behind a call remains: the kernel copies the same bytes \
         through the same TCP, and requests and completions cost something, too. What a saved call is worth depends \
         on the processor, the kernel and its mitigations, and on how many requests share a call. With one client \
         none do. So no percentage is true everywhere: measure on your machine, and compare with the noise.",
        "io_uring 省的是系统调用：一次调用就交出所有客户端的请求并睡下；epoll 则每个回答各要一次 recv() 和 send()，外加等待。\
         调用背后的工作一点没少：内核仍要把同样的字节经同样的 TCP 复制一遍，请求和完成事件本身也有开销。省下一次调用值多少，\
         要看处理器、内核及其漏洞缓解措施，还要看多少请求能合用一次调用；只有一个客户端时，没有可合用的。\
         所以不存在那个“百分之 x”，只有在您机器上的实测值，以及它的噪声。",
    ),
    read: &[
        "zen-poll/examples/completion/main.rs",
        "zen-poll/examples/completion/ring.rs",
        "zen-poll/src/event_loop.rs",
    ],
    is_alone: true,
    is_slow: true,
};

fn completion(notes: &mut Notes) -> Result<()> {
    // The first server is measured twice. The difference between its two figures is noise.
    const NAMES: [&str; 3] = ["poll", "completion", "poll"];
    let (levels, rounds): (&[usize], usize) = if notes.is_brief() { (&[1, 16], 2) } else { (&[1, 16, 1_000], 4) };
    let _raised = Descriptors::raise(1_500)?;
    for &busy in levels {
        let mut costs = [const { Vec::new() }; NAMES.len()];
        for round in 1..=rounds {
            for (name, costs) in NAMES.iter().zip(&mut costs) {
                notes.doing(&format!("{busy} busy: {name}, round {round}"));
                let server = server(name, &["--max-connections", "1100"])?;
                costs.push(cost(&server, busy).with_context(|| (*name).to_owned())?);
            }
        }
        let [epoll, uring, again] = costs;
        let to_epoll = |other: &[f64]| span(other.iter().zip(&epoll).map(|(other, epoll)| other / epoll));
        saw!(
            notes,
            "{busy} busy, µs of processor for an answer: epoll {before}, io_uring {after}; by rounds, io_uring is \
             {ratio} times epoll, and epoll {noise} times itself",
            "{busy} 个忙，每个回答的处理器时间（微秒）：epoll {before}，io_uring {after}；逐轮相比，io_uring 是 epoll 的 {ratio} 倍，\
             epoll 是自身的 {noise} 倍",
            before = span(epoll.iter().copied()),
            after = span(uring.iter().copied()),
            ratio = to_epoll(&uring),
            noise = to_epoll(&again),
        );
        let best = |costs: &[f64]| costs.iter().copied().fold(f64::INFINITY, f64::min);
        let (epoll, uring) = (best(&epoll), best(&uring));
        ensure!(uring < epoll * 4.0 && epoll < uring * 4.0, "epoll and io_uring differ by a factor of 4 or more");
    }
    let mut calls = [0.0; 2];
    for (calls, name) in calls.iter_mut().zip(NAMES) {
        notes.doing(&format!("{name} under strace"));
        *calls = syscalls::shares(servers::named(name)?, &[])?.values().sum();
    }
    let [epoll, uring] = calls;
    saw!(
        notes,
        "64 busy, system calls for an answer: epoll {epoll:.2}, io_uring {uring:.2}",
        "64 个忙，每个回答的系统调用数：epoll {epoll:.2}，io_uring {uring:.2}"
    );
    ensure!(
        epoll >= 2.0 && uring < 1.0,
        "expected less than 1 call for an answer with io_uring, and at least 2 with epoll"
    );
    Ok(())
}

/// Returns the microseconds of processor time that an answer costs a server with this number of busy clients.
fn cost(server: &Server, busy: usize) -> Result<f64> {
    let before = cpu_of(server)?;
    let seen = load(server, &["-c", &busy.to_string(), "-d", "300ms", "--warmup", "0"])?;
    let used = cpu_of(server)?.saturating_sub(before);
    ensure!(seen.failures() == 0 && seen.answers > 0, "the load failed: {:?}", seen.failures);
    Ok(used.as_secs_f64() * 1e6 / seen.answers as f64)
}

/// Returns the least and the most of some figures.
fn span(figures: impl Iterator<Item = f64>) -> String {
    let (least, most) = figures.fold((f64::INFINITY, 0.0_f64), |(least, most), n| (least.min(n), most.max(n)));
    format!("{least:.2}–{most:.2}")
}

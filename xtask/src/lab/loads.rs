//! Experiments with load: the size of pools, acceptors, overload, closed and open loops.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::Experiment;
use super::fixture::{Descriptors, cpu_of, ms, server, time_answer};
use super::notes::{Notes, Text};
use crate::bench::load::Report;
use crate::harness::group::run_within;
use crate::harness::{Server, WAIT_LIMIT, zen_client};

/// Runs `zen-client load` against a server, to its end.
pub(super) fn load(server: &Server, arguments: &[&str]) -> Result<Report> {
    // The exit status is ignored: it says whether there were failures, which the experiment checks itself.
    let output = run_within(2 * WAIT_LIMIT, zen_client("load", server.address())?.arg("--json").args(arguments))?;
    Report::parse(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

pub(super) const POOL_SIZE: Experiment = Experiment {
    name: "pool-size",
    claim: Text(
        "The right size of a pool is N·(1 + W/C), with N processors and jobs that wait W and compute C.",
        "线程池的正确大小是 N·(1 + W/C)：N 个处理器，W/C 是等待与计算之比。",
    ),
    question: Text(
        "each job computes for 1 ms, and waits for 0, 1 or 9 ms. From which number of workers on does a pool do no \
         more jobs a second? And what happens to a job's own time beyond that?",
        "每个任务计算 1 毫秒，再等待 0、1 或 9 毫秒。从多少个 worker 起，池子每秒完成的任务不再增加？超过之后，单个任务的耗时会怎样？",
    ),
    run: pool_size,
    why: Text(
        "the formula gives the size that keeps all processors busy, if no other program uses them and jobs are alike. \
         More workers gain nothing and lose little, but each job takes longer, because more jobs share the \
         processors. With too few workers, throughput falls in proportion. So measure W/C, round up, and bound the \
         queue.",
        "公式给出的是处理器刚好占满的点，前提是处理器全归你用、任务彼此相似。再多 worker 没有收益，每个任务反而更慢，因为更多任务分享处理器；\
         但损失也不大。太少则按比例损失。所以：测出 W/C，向上取整，并给队列设上限。",
    ),
    read: &["zen-threaded/src/workers.rs", "zen-proto/src/server/answerer.rs"],
    is_alone: true,
    is_slow: true,
};

fn pool_size(notes: &mut Notes) -> Result<()> {
    const SIZES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
    let processors = thread::available_parallelism()?.get();
    let rounds = rounds_of(Duration::from_millis(1));
    for waits in [0, 1, 9] {
        let mut rates = Vec::new();
        for workers in SIZES {
            notes.doing(&format!("W/C {waits}, {workers} workers"));
            rates.push(jobs(workers, rounds, Duration::from_millis(waits)));
        }
        let listed: Vec<String> =
            SIZES.iter().zip(&rates).map(|(size, (rate, time))| format!("{size}: {rate:.0} ({})", ms(*time))).collect();
        let formula = processors * (1 + usize::try_from(waits)?);
        saw!(
            notes,
            "W/C {waits}, {processors} processors, the formula says {formula}. Workers: jobs a second (time of \
             one): {listed}",
            "W/C {waits}，{processors} 个处理器，公式给出 {formula}。worker 数：每秒任务数（单个耗时）：{listed}",
            listed = listed.join(", "),
        );
        let (one, most) = (rates[0].0, rates[SIZES.len() - 1].0);
        if waits == 9 {
            ensure!(rates[4].0 > one * 3.0, "expected 16 workers that mostly wait to do 3 times as much as one");
        }
        ensure!(most > one / 5.0, "expected 64 workers to do at least a fifth of the jobs of one");
        ensure!(waits > 0 || most < one * processors as f64 * 5.0, "64 workers without waits gain more than expected");
        ensure!(waits > 0 || rates[6].1 > rates[0].1 * 5, "expected a job among 64 to take 5 times as long");
    }
    Ok(())
}

/// Returns how many jobs a second this number of workers does, and the mean time of a job.
fn jobs(workers: usize, rounds: u64, wait: Duration) -> (f64, Duration) {
    const MEASURED_TIME: Duration = Duration::from_millis(300);
    let (is_over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    compute(rounds);
                    thread::sleep(wait);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(MEASURED_TIME);
        is_over.store(true, Ordering::Relaxed);
    });
    let (time, done) = (start.elapsed(), done.into_inner().max(1));
    (
        done as f64 / time.as_secs_f64(),
        time * u32::try_from(workers).unwrap_or(u32::MAX) / u32::try_from(done).unwrap_or(1),
    )
}

/// Computes without asking the clock, so that a worker that has to share a processor takes longer.
fn compute(rounds: u64) {
    black_box((0..rounds).fold(1_u64, |sum, n| black_box(sum.wrapping_mul(31).wrapping_add(n))));
}

/// Returns how many rounds of [`compute`] take this time, at the fastest of some tries.
fn rounds_of(time: Duration) -> u64 {
    const TRIED: u64 = 200_000;
    let tries = (0..10).map(|_| {
        let start = Instant::now();
        compute(TRIED);
        start.elapsed()
    });
    let best = tries.min().unwrap_or(time).as_secs_f64();
    (TRIED as f64 * time.as_secs_f64() / best) as u64
}

pub(super) const ACCEPTOR: Experiment = Experiment {
    name: "acceptor",
    claim: Text(
        "A thread just for accept() is what a threaded server needs; or: it is harmful.",
        "多线程服务器需要一个专管 accept() 的线程；或者说：这种线程有害。",
    ),
    question: Text(
        "16 clients come with one question each, again and again. 4 workers share accept(), or one thread accepts \
         for 4 workers through a queue. What does a client cost each server, and how long does it wait?",
        "16 个客户端不断重新连接，每次只问一个问题。4 个 worker 共用 accept()，或由一个线程 accept 并通过队列交给 4 个 worker。\
         每个客户端各花多少？要等多久？",
    ),
    run: acceptor,
    why: Text(
        "with a shared accept() the kernel's backlog is the queue, and the kernel hands each client to a sleeping \
         worker. An acceptor adds a lock and one more switch of threads for each client, little next to the three-way \
         handshake. What it buys is a queue of the program's own: it can be bounded, measured, and rejected from. \
         Which of the two is cheaper here is measured. A difference that is smaller than the noise means nothing.",
        "共用 accept() 时，内核的 backlog 就是队列，由内核把客户端交给睡眠中的 worker。专门的 acceptor 给每个客户端添一次加锁、\
         一次线程切换，与三次握手相比不算多。它换来的是程序自己的队列：可以设上限、可以测量、可以拒绝。\
         这里哪个更便宜以实测为准；小于同一服务器两次运行之差的差别，等于没有。",
    ),
    read: &["zen-threaded/src/pool.rs", "zen-threaded/src/workers.rs"],
    is_alone: true,
    is_slow: true,
};

fn acceptor(notes: &mut Notes) -> Result<()> {
    const NAMES: [&str; 3] = ["workers", "pool", "workers"];
    const ROUNDS: usize = 2;
    let mut costs = [const { Vec::new() }; NAMES.len()];
    for round in 1..=ROUNDS {
        for (name, costs) in NAMES.iter().zip(&mut costs) {
            notes.doing(&format!("{name}, round {round}"));
            let server = server(name, &[])?;
            server.served_client()?;
            let before = cpu_of(&server)?;
            let seen = load(&server, &["-c", "16", "--churn", "-d", "1s", "--warmup", "0"])?;
            let used = cpu_of(&server)?.saturating_sub(before);
            ensure!(seen.failures() == 0 && seen.answers > 0, "{name}: {:?}", seen.failures);
            costs.push((used.as_secs_f64() * 1e6 / seen.answers as f64, seen.answers_per_second, seen.p99()));
        }
    }
    for (name, costs) in ["workers", "pool", "workers (A/A)"].iter().zip(&costs) {
        let listed: Vec<String> =
            costs.iter().map(|(cost, rate, p99)| format!("{cost:.1} µs, {rate:.0}/s, p99 {}", ms(*p99))).collect();
        saw!(
            notes,
            "{name}: processor for a client, clients a second, and the wait: {listed}",
            "{name}：每个客户端的处理器时间、每秒客户端数、等待：{listed}",
            listed = listed.join("; "),
        );
    }
    let best = |costs: &[(f64, f64, Duration)]| costs.iter().map(|(cost, ..)| *cost).fold(f64::INFINITY, f64::min);
    let (shared, queued) = (best(&costs[0]), best(&costs[1]));
    ensure!(queued < shared * 5.0 && shared < queued * 5.0, "workers and pool differ by a factor of 5 or more");
    Ok(())
}

pub(super) const OVERLOAD: Experiment = Experiment {
    name: "overload",
    claim: Text("A longer queue saves an overloaded server.", "队列更长，就能救过载的服务器。"),
    question: Text(
        "a server can give 400 answers a second, and clients give up after 1 s. They ask at 0.5, 1 and 3 times \
         that rate. How many answers come in time from a queue of 4,000, and how many if the server rejects \
         clients that it cannot serve at once? How long does each need to recover?",
        "服务器每秒能给 400 个回答，客户端 1 秒后放弃。提问速率是它的 0.5、1 和 3 倍。队列长 4,000 时，及时的回答有多少？\
         如果服务器当场拒绝接不下的，又有多少？过载结束后各要多久恢复？",
    ),
    run: overload,
    why: Text(
        "above capacity a queue grows without end, and soon every client in it waits past its timeout. \
         The server goes on working, for clients that have left. A server without a queue answers the clients \
         that it accepts in time, rejects the others immediately, and has no backlog left afterwards.",
        "超过容量，队列只会越来越长，很快其中每一个都要等到不耐烦之后。服务器仍在忙碌，服务的却是已经离开的客户端。\
         不设队列、当场拒绝的服务器，能及时回答接下的客户端，立即拒绝其余的，过载之后也没有积压要消化。",
    ),
    read: &["zen-proto/src/server/permits.rs", "zen-proto/src/server/listener.rs"],
    is_alone: true,
    is_slow: true,
};

fn overload(notes: &mut Notes) -> Result<()> {
    const CAPACITY: usize = 400;
    let offered: &[usize] = if notes.is_brief() { &[30] } else { &[5, 10, 30] };
    let _raised = Descriptors::raise(5_000)?;
    let servers: [(&str, &str, &[&str]); 2] = [
        ("4,000", "workers", &["--workers", "4", "--backlog", "4000"]),
        ("0", "per-connection", &["--max-connections", "4", "--backlog", "4000"]),
    ];
    let mut at_three = Vec::new();
    for (queue, name, arguments) in servers {
        for &tenths in offered {
            let server = server(name, &[arguments, &["--delay", "10ms"]].concat())?;
            let (rate, times) = ((CAPACITY * tenths / 10).to_string(), tenths as f64 / 10.0);
            notes.doing(&format!("queue {queue}, {rate} a second"));
            let clients = ["-c", "3000", "--churn", "-r", &rate, "--timeout", "1s", "-d", "2s", "--warmup", "1s"];
            let seen = load(&server, &clients)?;
            let start = Instant::now();
            let recovered = recovers(&server)?;
            saw!(
                notes,
                "queue {queue}, {times} × capacity: {good:.0} answers a second in time (p50 {p50}), {failures} \
                 failures; recovered after {recovered}",
                "队列 {queue}，{times} 倍容量：每秒 {good:.0} 个及时的回答（p50 {p50}），{failures} 个失败；{recovered} 后恢复",
                good = seen.answers_per_second,
                p50 = ms(seen.p50()),
                failures = seen.failures(),
                recovered = ms(recovered - start),
            );
            if tenths == 30 {
                at_three.push((seen.answers_per_second, recovered - start));
            }
        }
    }
    let [(long, slow), (short, quick)] = at_three[..] else { unreachable!("two were overloaded") };
    ensure!(
        short > long * 5.0 || slow > quick * 5,
        "expected fewer answers in time from the long queue, or a later recovery"
    );
    Ok(())
}

/// Returns when a client that comes after the load has its answer within 200 ms.
fn recovers(server: &Server) -> Result<Instant> {
    let deadline = Instant::now() + WAIT_LIMIT;
    loop {
        let start = Instant::now();
        let answered = server.client().and_then(|mut client| time_answer(&mut client));
        if answered.is_ok() && start.elapsed() < Duration::from_millis(200) {
            return Ok(Instant::now());
        }
        ensure!(Instant::now() < deadline, "it does not recover");
        thread::sleep(Duration::from_millis(10));
    }
}

pub(super) const OMISSION: Experiment = Experiment {
    name: "omission",
    claim: Text("The load generator's p99 is what users feel.", "压测工具报告的 p99 就是用户的感受。"),
    question: Text(
        "a server is frozen for 1 s of 3. One load generator asks when it has its answer (closed loop), another \
         500 times a second whatever happens (open loop). What p99 do they report?",
        "3 秒之中服务器冻结 1 秒。一个压测工具拿到回答才问下一个（闭环），另一个无论如何每秒问 500 次（开环）。它们各报告多大的 p99？",
    ),
    run: omission,
    why: Text(
        "while the server is frozen, each connection of the closed loop waits with one question: 4 slow answers \
         among thousands. Users do not hold back for a server. At a fixed rate 500 questions fall into that \
         second, and all of them wait. The closed loop leaves out the questions that it did not send meanwhile: \
         coordinated omission.",
        "服务器冻结时，闭环的每个连接只带着一个问题在等：几千个回答里只有 4 个慢的。用户可不会体谅服务器而停下来。\
         固定速率下，有 500 个问题落在那一秒，全都要等。闭环漏掉了它本来会问的问题：这叫“协同遗漏”（coordinated omission）。",
    ),
    read: &["zen-client/src/load/schedule.rs", "zen-client/README.md"],
    is_alone: true,
    is_slow: true,
};

fn omission(notes: &mut Notes) -> Result<()> {
    const FREEZE: Duration = Duration::from_secs(1);
    let mut p99 = Vec::new();
    for (name, chinese, rate) in [("closed loop", "闭环", None), ("open loop", "开环", Some("500"))] {
        notes.doing(name);
        let server = server("poll", &[])?;
        let mut arguments = vec!["-c", "4", "-d", "3s", "--warmup", "500ms"];
        arguments.extend(rate.iter().flat_map(|rate| ["-r", rate]));
        let seen = thread::scope(|scope| {
            let loading = scope.spawn(|| load(&server, &arguments));
            thread::sleep(Duration::from_millis(1_500));
            server.signal(Signal::STOP)?;
            thread::sleep(FREEZE);
            server.signal(Signal::CONT)?;
            loading.join().ok().context("the load panicked")?
        })?;
        saw!(
            notes,
            "{name}: {answers} answers, p50 {p50}, p99 {p99}",
            "{chinese}：{answers} 个回答，p50 {p50}，p99 {p99}",
            answers = seen.answers,
            p50 = ms(seen.p50()),
            p99 = ms(seen.p99()),
        );
        p99.push(seen.p99());
    }
    ensure!(p99[1] > FREEZE / 2 && p99[1] > p99[0] * 5, "expected only the open loop to show the freeze in its p99");
    Ok(())
}

//! What else a failure ends, and what a server does when it runs out of threads or descriptors.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Experiment;
use super::fixture::{faulty_example, ms, server, time_answer};
use super::notes::{Notes, Text};
use crate::harness::client::{APHORISMS, Received};
use crate::harness::process::{limit_descriptors, memory_of};
use crate::harness::{Client, Server, WAIT_LIMIT, wait_for};

pub(super) const PROCESSES: Experiment = Experiment {
    name: "processes",
    claim: Text("Processes do not disturb each other, and cost more than threads.", "进程互不干扰，但比线程更费。"),
    question: Text(
        "4 clients have a worker each, and one worker aborts. Which clients are still served if the workers are \
         processes, and if they are threads? And what do 5 processes cost in memory?",
        "4 个客户端各有一个 worker，其中一个 worker 中止（abort）。worker 是进程时，哪些客户端继续得到服务？是线程\
         时呢？5 个进程占多少内存？",
    ),
    run: processes,
    why: Text(
        "an abort ends a process with all its threads. The parent sees that a worker has ended and starts \
         another. RSS, as ps shows it, counts shared pages once for each process; PSS divides them, and says what \
         the processes cost.",
        "abort 结束整个进程及其所有线程。父进程发现 worker 结束，就另起一个。ps 显示的 RSS 把共享页面在每个进程里\
         各算一遍；PSS 把它们均摊，才是真实代价。",
    ),
    read: &["zen-proto/src/server/supervisor.rs", "zen-threaded/src/workers.rs"],
    is_alone: false,
    is_slow: false,
};

fn processes(notes: &mut Notes) -> Result<()> {
    let mut memory = Vec::new();
    for name in ["processes", "workers"] {
        notes.doing(name);
        let mut server = server(name, &["--abort-on", "Abort?"])?;
        let mut clients = server.served_clients(4)?;
        let (rss, pss) = (
            memory_of(&server.processes(), "smaps_rollup", "Rss:")?,
            memory_of(&server.processes(), "smaps_rollup", "Pss:")?,
        );
        memory.push((rss, pss));
        let mut unlucky = clients.pop().context("there are four")?;
        unlucky.send(b"Abort?")?;
        ensure!(is_lost(&mut unlucky)?, "it does not abort");
        let left = clients.iter_mut().filter_map(|client| time_answer(client).ok()).count();
        let is_there = server.ended_within(Duration::from_millis(100)).is_none();
        if name == "processes" {
            ensure!(left == 3 && is_there, "{left} of 3 others are still served");
            server.served_client().context("a new client, by the worker's successor")?;
            saw!(
                notes,
                "4 processes: 1 aborts, the 3 others go on, and its successor serves a new client",
                "4 个进程：1 个中止，另外 3 个继续服务，接替者服务新客户端"
            );
        } else {
            ensure!(left == 0 && !is_there, "threads: {left} of 3 others are still served");
            saw!(
                notes,
                "4 threads: 1 aborts, and all clients are lost: the server has ended",
                "4 个线程：1 个中止，所有客户端都丢失：服务器已结束"
            );
        }
    }
    let kib = |bytes: u64| format!("{} KiB", bytes / 1024);
    let [(rss, pss), (_, threaded)] = memory[..] else { unreachable!("two were measured") };
    saw!(
        notes,
        "the processes' memory is {rss} by RSS, in fact (PSS) {pss}",
        "各进程的内存按 RSS 是 {rss}，实际（PSS）是 {pss}",
        rss = kib(rss),
        pss = kib(pss),
    );
    saw!(notes, "the threads' memory is {pss} (PSS)", "多线程的内存是 {pss}（PSS）", pss = kib(threaded));
    ensure!(pss < rss && threaded < pss, "expected the PSS of processes between that of threads and their RSS");
    Ok(())
}

pub(super) const UNBOUNDED: Experiment = Experiment {
    name: "unbounded",
    claim: Text(
        "A thread per connection cannot be bounded, so it is unfit for use.",
        "每连接一个线程无法设上限，所以不可用。",
    ),
    question: Text(
        "200 silent clients connect. Which server still answers the next one: the faulty example without any \
         bound, 4 workers, or a thread per connection with a bound and a timeout?",
        "200 个沉默的客户端连上来。谁还能回答下一个：没有任何上限的缺陷示例、4 个 worker，还是既有上限又有超时的每\
         连接一线程？",
    ),
    run: unbounded,
    why: Text(
        "neither bound is enough alone. Without a limit the silent clients hold any number of threads. Without a \
         timeout they occupy all workers for ever, so 4 of them stop 4 workers. With both, new clients are \
         rejected immediately, and soon there is room again.",
        "单靠哪一个都不够。没有上限，沉默的客户端想占多少线程就占多少；没有超时，它们永远占着仅有的位置，4 个就能\
         让 4 个 worker 全部失效。两者都有，新客户端立即得到告知，位置也很快腾出来。",
    ),
    read: &["zen-threaded/examples/unbounded.rs", "zen-threaded/src/per_connection.rs"],
    is_alone: false,
    is_slow: false,
};

fn unbounded(notes: &mut Notes) -> Result<()> {
    const SILENT: usize = 200;
    notes.doing("200 silent clients of the faulty example");
    let naive = faulty_example("unbounded")?;
    let silent = naive.clients(SILENT)?;
    let time = time_answer(&mut naive.client()?)?;
    let threads = naive.usage().threads;
    saw!(
        notes,
        "unbounded: {SILENT} silent clients hold {threads} threads; the next is answered in {time}",
        "unbounded：{SILENT} 个沉默的客户端占着 {threads} 个线程；下一个在 {time} 内得到回答",
        time = ms(time),
    );
    ensure!(threads > SILENT, "expected a thread for each client");
    drop((silent, naive));

    notes.doing("4 silent clients of 4 workers");
    let workers = server("workers", &[])?;
    let silent = workers.clients(4)?;
    let mut next = workers.asking_client()?;
    next.expect_silence(Duration::from_millis(300)).context("4 workers")?;
    saw!(
        notes,
        "4 workers: 4 silent clients, and the next gets no answer until --idle-timeout ends one of them",
        "4 个 worker：4 个沉默的客户端，下一个要等到 --idle-timeout 结束其中一个才有回答"
    );
    drop((silent, workers));

    notes.doing("a limit and a timeout");
    let bounded = server("per-connection", &["--max-connections", "20", "--idle-timeout", "500ms"])?;
    let mut silent = bounded.clients(20)?;
    // The last of them has been accepted when the one after it is rejected.
    let mut rejected = bounded.client()?;
    rejected.expect(b"Error: too many clients.").context("one over the limit")?;
    silent.iter_mut().try_for_each(Client::expect_end).context("a silent client, after its timeout")?;
    let time = time_answer(&mut bounded.client()?)?;
    let back = wait_for(WAIT_LIMIT, || (bounded.usage().threads <= 4).then_some(()));
    back.context("its threads do not end")?;
    saw!(
        notes,
        "a limit of 20 and a timeout: number 21 is rejected immediately; after 500 ms the silent ones are \
         disconnected, and an answer takes {time}",
        "上限 20 并有超时：第 21 个立即被拒绝；500 毫秒后位置全部空出，一个回答用时 {time}",
        time = ms(time),
    );
    Ok(())
}

pub(super) const CRASH: Experiment = Experiment {
    name: "crash",
    claim: Text("Threads keep one client's failure from the others.", "线程能让一个客户端的故障不波及其他客户端。"),
    question: Text(
        "a thread serves you. Another thread panics or aborts, or the process has no descriptor left. Which of \
         the three do you notice, and which does a new client?",
        "一个线程正在服务您。另一个线程 panic 或 abort，或者进程用光了描述符。这三者您会察觉哪些？新客户端又会察觉\
         哪些？",
    ),
    run: crash,
    why: Text(
        "a panic unwinds one stack, and ends there. Everything else that can fail belongs to the process: its \
         life, its memory, its table of descriptors. Only a separate process has its own.",
        "panic 只展开一个栈，到此为止。其他会出故障的东西都属于整个进程：它的生命、内存和描述符表。只有另一个进程\
         才有另一份。",
    ),
    read: &["zen-proto/src/server/answerer.rs", "zen-proto/src/server/accept.rs"],
    is_alone: false,
    is_slow: false,
};

fn crash(notes: &mut Notes) -> Result<()> {
    const FAILURES: [&str; 4] = ["--panic-on", "Panic?", "--abort-on", "Abort?"];
    notes.doing("a thread panics");
    let threads = server("per-connection", &FAILURES)?;
    let mut bystander = threads.served_client()?;
    let mut unlucky = threads.served_client()?;
    unlucky.send(b"Panic?")?;
    ensure!(is_lost(&mut unlucky)?, "it does not panic");
    time_answer(&mut bystander).context("the bystander of a panic")?;
    threads.served_client().context("a new client after a panic")?;
    saw!(
        notes,
        "threads, a panic: its own client is lost, all others are still served",
        "线程，panic：只丢失它自己的客户端，其他的照常得到服务"
    );

    notes.doing("a threaded process has no descriptors");
    let limit = limit_descriptors(threads.pid(), Some(0))?;
    // The first client is accepted: the accept() that sleeps has reserved a descriptor for it.
    let mut arrivals = (0..2).map(|_| threads.asking_client()).collect::<Result<Vec<_>>>()?;
    let mut last = arrivals.pop().context("there are two")?;
    last.expect_silence(Duration::from_millis(300)).context("a new client without descriptors")?;
    time_answer(&mut bystander).context("the bystander without descriptors")?;
    limit_descriptors(threads.pid(), limit)?;
    last.expect(APHORISMS[0].1).context("the new client, with descriptors again")?;
    saw!(
        notes,
        "threads, no descriptors: existing clients continue, a new one waits in the backlog",
        "线程，没有描述符：已有的客户端继续，新来的在 backlog 里等"
    );

    notes.doing("a thread aborts");
    let mut unlucky = threads.served_client()?;
    unlucky.send(b"Abort?")?;
    ensure!(is_lost(&mut unlucky)? && is_lost(&mut bystander)?, "expected an abort to end all clients");
    saw!(notes, "threads, an abort: all clients are lost", "线程，abort：所有客户端都丢失");

    notes.doing("a worker process aborts, another has no descriptors");
    let processes = server("processes", &FAILURES)?;
    let mut bystander = processes.served_client()?;
    let mut unlucky = processes.served_client()?;
    unlucky.send(b"Abort?")?;
    ensure!(is_lost(&mut unlucky)?, "it does not abort");
    time_answer(&mut bystander).context("the bystander of another process")?;
    let worker = *processes.workers().last().context("there are workers")?;
    limit_descriptors(worker, Some(0))?;
    (0..6)
        .try_for_each(|_| processes.served_client().map(drop))
        .context("new clients, while one worker has no descriptors")?;
    saw!(
        notes,
        "processes, an abort, and another without descriptors: all other clients are served, new ones too",
        "进程，一个 abort，另一个没有描述符：其他客户端都得到服务，新来的也一样"
    );
    Ok(())
}

pub(super) const EMFILE: Experiment = Experiment {
    name: "emfile",
    claim: Text(
        "A loop that retries accept() copes with running out of descriptors.",
        "出错就重试的循环，已经扛过了描述符耗尽。",
    ),
    question: Text(
        "no descriptor is left, and 3 clients connect. How much of a processor does the faulty example use, and \
         how much zen-poll? Which clients are served?",
        "描述符用光了，又有 3 个客户端来连接。缺陷示例占多少处理器？zen-poll 呢？哪些客户端得到服务？",
    ),
    run: emfile,
    why: Text(
        "a client that cannot be accepted stays in the backlog, so the listener stays ready, and a \
         level-triggered wait returns immediately, again and again. zen-poll takes the listener out of its poller for \
         100 ms.",
        "接不进来的客户端留在 backlog 里，监听套接字于是一直就绪，水平触发的等待次次立即返回。zen-poll 会把监听套\
         接字从 poller 中取出 100 毫秒。",
    ),
    read: &["zen-poll/examples/accept_spin.rs", "zen-poll/src/acceptor.rs"],
    is_alone: true,
    is_slow: false,
};

fn emfile(notes: &mut Notes) -> Result<()> {
    const MEASURED_TIME: Duration = Duration::from_millis(500);
    let mut used_by = |name: &str, server: Server| -> Result<Duration> {
        notes.doing(name);
        let mut bystander = server.served_client()?;
        let limit = limit_descriptors(server.pid(), Some(0))?;
        let mut waiting = (0..3).map(|_| server.asking_client()).collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let (used, time) = (server.cpu_within(MEASURED_TIME), start.elapsed());
        time_answer(&mut bystander).context("an existing client")?;
        ensure!(
            waiting.iter_mut().all(|client| client.try_read().ok() == Some(Received::Nothing)),
            "a new client is served"
        );
        limit_descriptors(server.pid(), limit)?;
        waiting.iter_mut().try_for_each(|client| client.expect(APHORISMS[0].1)).context("with descriptors again")?;
        saw!(
            notes,
            "{name}: {used} of processor in {time}; new clients are served only when there are descriptors again",
            "{name}：{time} 里占用处理器 {used}；新客户端暂时都没有服务，之后全部得到",
            used = ms(used),
            time = ms(time),
        );
        Ok(used)
    };
    let naive = used_by("accept_spin", faulty_example("accept_spin")?)?;
    let fixed = used_by("zen-poll", server("poll", &[])?)?;
    ensure!(
        naive > MEASURED_TIME / 8 && naive > fixed * 5,
        "expected only the faulty example to use much of a processor"
    );
    Ok(())
}

/// Returns whether its connection ends without an answer, in whatever way.
fn is_lost(client: &mut Client) -> Result<bool> {
    Ok(matches!(client.read_some()?, Received::End | Received::Reset))
}

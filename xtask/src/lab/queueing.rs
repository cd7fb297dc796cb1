//! What happens before a client is served: the backlog, which thread or process accepts, what a connection proves.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use super::Experiment;
use super::fixture::{TIME_WAIT, connections, ms, server, time_answer};
use super::notes::{Notes, Text};
use crate::harness::client::{APHORISMS, Received};
use crate::harness::group::run_within;
use crate::harness::log::lines_by_writer;
use crate::harness::{Client, Server, WAIT_LIMIT, process, strace, wait_for, zen_client};
use crate::workspace;

pub(super) const BACKLOG: Experiment = Experiment {
    name: "backlog",
    claim: Text(
        "With listen(1), further clients cannot connect while one is served.",
        "用 listen(1) 时，一个客户端正被服务，其他客户端就连不上。",
    ),
    question: Text(
        "zen-single --backlog 1 serves one client. How many more can connect, and what happens to the next?",
        "zen-single --backlog 1 正在服务一个客户端。还能再连上几个？再下一个会怎样？",
    ),
    run: backlog,
    why: Text(
        "a backlog of b holds b + 1 connections. The kernel completes their handshakes by itself, so a client that is \
         connected is not yet served. When the backlog is full, the kernel drops the next SYN silently. The client's \
         kernel sends it again a second later, even if there was room much earlier.",
        "长度为 b 的 backlog 可容纳 b + 1 个连接。握手由内核独自完成：连上不等于被服务。backlog 满了，内核就悄悄丢\
         弃下一个 SYN；客户端内核一秒后才重发，哪怕早已有空位。",
    ),
    read: &["zen-proto/src/server/listener.rs", "zen-single/src/serve.rs"],
    is_alone: false,
    is_slow: false,
};

fn backlog(notes: &mut Notes) -> Result<()> {
    for b in [1, 4] {
        let server = server("single", &["--backlog", &b.to_string()])?;
        let _served = server.served_client()?;
        let mut waiting = Vec::new();
        while waiting.len() < 10
            && let Ok(stream) = TcpStream::connect_timeout(&server.address(), SHORT)
        {
            waiting.push(stream);
        }
        saw!(
            notes,
            "backlog {b}: one client is served, {more} more connect",
            "backlog {b}：一个正被服务，还能连上 {more} 个",
            more = waiting.len(),
        );
        ensure!(waiting.len() == b + 1, "expected {} connections in a backlog of {b}", b + 1);
    }
    notes.doing("one is served, two wait, a third connects");
    let server = server("single", &["--backlog", "1"])?;
    let served = server.served_client()?;
    let (mut first, second) = (server.client()?, server.client()?);
    first.send(APHORISMS[0].0)?;
    first.expect_silence(SHORT / 2).context("a client that is only connected")?;
    let (third, room) = thread::scope(|scope| {
        let address = server.address();
        let connecting = scope.spawn(move || {
            let start = Instant::now();
            Client::connect(address).map(|_| start.elapsed())
        });
        thread::sleep(SHORT);
        drop(served);
        first.expect(APHORISMS[0].1).context("the next client, after the first has left")?;
        drop(first);
        Ok::<_, anyhow::Error>((connecting.join().map_err(|_| anyhow!("it panicked"))??, SHORT))
    })?;
    drop(second);
    saw!(
        notes,
        "a client that is connected asks, and gets no answer until the one before it has left",
        "已连上的客户端提问，要等前面的离开才有回答"
    );
    saw!(
        notes,
        "the next hangs in connect() for {third}, though there was room after {room}",
        "再下一个在 connect() 里挂了 {third}，其实 {room} 后就有空位",
        third = ms(third),
        room = ms(room),
    );
    ensure!(third > 3 * room, "expected connect() to take about a second");
    Ok(())
}

pub(super) const ONE_LISTEN: Experiment = Experiment {
    name: "one-listen",
    claim: Text(
        "In a threaded server, every thread listens and accepts.",
        "多线程服务器里，每个线程都 listen 并 accept。",
    ),
    question: Text(
        "zen-threaded has 4 workers. How often does it call listen(), and which worker gets which of 60 clients?",
        "zen-threaded 有 4 个 worker。它调用几次 listen()？60 个客户端怎样分给各 worker？",
    ),
    run: one_listen,
    why: Text(
        "listening is a property of the socket, and there is one socket. Four threads sleep in accept() on it; \
         the kernel wakes the one that has slept longest, and no other.",
        "监听是套接字的属性，而套接字只有一个。四个线程都睡在它的 accept() 上；内核只唤醒睡得最久的那一个。",
    ),
    read: &["zen-threaded/src/workers.rs"],
    is_alone: true,
    is_slow: false,
};

fn one_listen(notes: &mut Notes) -> Result<()> {
    let mut command = Command::new(strace()?);
    command.args(["-f", "-e", "trace=listen,accept4"]).arg(workspace::binary("zen-threaded")?).args(["-p", "0"]);
    let server = Server::run(&mut command)?;
    for n in 1..=CLIENTS {
        notes.doing(&format!("client {n} of {CLIENTS}"));
        server.served_client()?;
        server.wait_until_asleep(WAIT_LIMIT)?;
    }
    let log = server.log();
    let listens = log.lines().filter(|line| line.contains("listen(")).count();
    let accepts = log.lines().filter_map(accepted_by);
    let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
    accepts.for_each(|thread| *shares.entry(thread).or_default() += 1);
    let counts: Vec<usize> = shares.values().copied().collect();
    saw!(notes, "listen() is called {listens} time", "listen() 调用了 {listens} 次");
    saw!(
        notes,
        "accept() has returned clients in {threads} threads: {counts:?}",
        "accept() 在 {threads} 个线程里返回过客户端：{counts:?}",
        threads = counts.len(),
        counts = &counts,
    );
    ensure!(listens == 1 && counts.len() == 4, "one listen and four threads that accept were expected");
    let share = CLIENTS / 4;
    ensure!(
        counts.iter().all(|count| count.abs_diff(share) <= share / 2),
        "expected about {share} clients in each thread"
    );
    Ok(())
}

/// Returns the thread, in a line of strace in which accept4 gives a client: `[pid 7] <... accept4 resumed>…) = 4`.
fn accepted_by(line: &str) -> Option<&str> {
    let (call, result) = line.rsplit_once(" = ")?;
    let has_client = call.contains("accept4") && !result.starts_with('-') && !result.starts_with('?');
    let pid = line.strip_prefix("[pid")?.trim_start().split(']').next()?;
    has_client.then_some(pid)
}

pub(super) const SPREAD: Experiment = Experiment {
    name: "spread",
    claim: Text(
        "A listener that processes share spreads the clients over them.",
        "多个进程共用监听套接字，客户端就会均匀分给它们。",
    ),
    question: Text(
        "60 clients connect. How many does each of 4 blocking processes get, and how many each of 2 event loops \
         that share the listener?",
        "60 个客户端来连接。4 个阻塞式进程各得多少？共用监听套接字的 2 个事件循环各得多少？",
    ),
    run: spread,
    why: Text(
        "processes that sleep in accept() are woken in order, one for each client. Event loops are all \
         notified, and race: the first to wake accepts all clients that wait, so one loop gets most of a burst. \
         Clients that come one by one go to either by chance. With --loops one loop accepts, and hands out the \
         clients.",
        "睡在 accept() 里的进程按顺序被唤醒，每个客户端唤醒一个。事件循环则全都得到通知，彼此竞争：先醒的把等着的\
         全部接走，所以一阵突发几乎整个落到其中一个；逐个到来的则碰运气。用 --loops 时由一个循环 accept，再分发客\
         户端。",
    ),
    read: &["zen-threaded/src/workers.rs", "zen-poll/src/acceptor.rs"],
    is_alone: true,
    is_slow: false,
};

fn spread(notes: &mut Notes) -> Result<()> {
    notes.doing("blocking processes, one client after the other");
    let blocking = server("processes", &["-v"])?;
    for _ in 0..CLIENTS {
        blocking.served_client()?;
        blocking.wait_until_asleep(WAIT_LIMIT)?;
    }
    let parts = shares(&blocking, " accepted")?;
    saw!(notes, "4 blocking processes: {parts:?} of {CLIENTS}", "4 个阻塞式进程：{CLIENTS} 个客户端分成 {parts:?}");

    notes.doing("event loops in processes, one client after the other");
    let looping = server("poll-processes", &["-v"])?;
    let stay = looping.served_clients(CLIENTS)?;
    saw!(
        notes,
        "2 event loops in processes, one client after the other: {shares:?}",
        "2 个进程里的事件循环，客户端逐个到来：{shares:?}",
        shares = shares(&looping, " accepted")?,
    );
    drop((stay, looping));

    let mut busiest = Vec::new();
    for burst in 1..=BURSTS {
        notes.doing(&format!("event loops in processes, burst {burst} of {BURSTS}"));
        let looping = server("poll-processes", &["-v"])?;
        let stay = looping.clients(CLIENTS)?;
        busiest.extend(shares(&looping, " accepted")?.last().copied());
        drop(stay);
    }
    saw!(
        notes,
        "2 event loops in processes, all together: the busier gets {busiest:?} in {BURSTS} bursts",
        "2 个进程里的事件循环，同时到来：{BURSTS} 次突发中较忙的一个分到 {busiest:?}"
    );

    notes.doing("event loops in threads");
    let dealt = server("poll-loops", &["-v"])?;
    drop(dealt.served_clients(CLIENTS)?);
    // One loop accepts for all: which loop serves a client shows when it is closed.
    let dealt = shares(&dealt, " closed: ")?;
    saw!(notes, "2 loops, one of which hands the clients out: {dealt:?}", "2 个循环，由其中一个分发客户端：{dealt:?}");

    let is_even = |shares: &[usize], parts: usize| {
        let share = CLIENTS / parts;
        shares.len() == parts && shares.iter().all(|count| count.abs_diff(share) <= share / 2)
    };
    ensure!(is_even(&parts, 4) && is_even(&dealt, 2), "expected even shares of processes and of --loops");
    ensure!(busiest.iter().any(|&count| count > CLIENTS * 3 / 5), "expected one loop to get most of a burst");
    Ok(())
}

/// Returns how many clients each process or thread has accepted or closed, the fewest first.
fn shares(server: &Server, what: &str) -> Result<Vec<usize>> {
    let counted = |log: &str| {
        let mut shares: Vec<usize> = lines_by_writer(log, what).into_values().collect();
        shares.sort_unstable();
        (shares.iter().sum::<usize>() >= CLIENTS).then_some(shares)
    };
    server.wait_for_log(WAIT_LIMIT, counted).context("the log does not show every client")
}

/// How many clients connect.
const CLIENTS: usize = 60;

/// How often they connect together.
const BURSTS: usize = 5;

pub(super) const FROZEN: Experiment = Experiment {
    name: "frozen",
    claim: Text("A server that accepts a connection is alive.", "能连上的服务器就是活着的。"),
    question: Text(
        "zen-single is stopped by SIGSTOP: it executes nothing. Can a health check connect? Does it learn more \
         if it asks a question?",
        "SIGSTOP 暂停了 zen-single：它什么也不执行。健康检查还能连上吗？提一个问题能知道得更多吗？",
    ),
    run: frozen,
    why: Text(
        "the kernel completes handshakes for a process that is stopped, stuck or too busy, until its backlog is \
         full. Only an answer proves that the server works.",
        "进程被暂停、卡住或太忙时，内核照样替它完成握手，直到 backlog 满。只有回答才能证明服务器在工作。",
    ),
    read: &["zen-client/src/check.rs"],
    is_alone: false,
    is_slow: false,
};

fn frozen(notes: &mut Notes) -> Result<()> {
    let server = server("single", &[])?;
    process::stop(server.pid())?;
    notes.doing("the server is stopped");
    let start = Instant::now();
    let mut client = server.client().context("a connect check")?;
    saw!(
        notes,
        "stopped: connect() succeeds after {time}: \"up\"",
        "已暂停：connect() 在 {time} 后成功：“正常”",
        time = ms(start.elapsed()),
    );
    let is_up = |server: &Server| -> Result<bool> {
        let mut judge = zen_client("check", server.address())?;
        Ok(run_within(WAIT_LIMIT, judge.args(["--quick", "--timeout", "300ms"]))?.status.success())
    };
    ensure!(!is_up(&server)?, "zen-client check --quick says up");
    saw!(
        notes,
        "stopped: zen-client check --quick, which asks, says \"down\"",
        "已暂停：zen-client check --quick 会提问，它说“不正常”"
    );
    client.send(APHORISMS[2].0)?;
    client.expect_silence(SHORT)?;
    server.signal(Signal::CONT)?;
    client.expect(APHORISMS[2].1).context("the server, after SIGCONT")?;
    saw!(
        notes,
        "it continues: the client that connected meanwhile has its answer",
        "继续运行：其间连上的客户端得到了回答"
    );
    Ok(())
}

pub(super) const REUSE: Experiment = Experiment {
    name: "reuse",
    claim: Text("SO_REUSEADDR is set before bind(), as a matter of course.", "bind() 之前设 SO_REUSEADDR 不过是惯例。"),
    question: Text(
        "a server that has just closed a connection ends. Can another bind its port immediately, with the option and \
         without?",
        "服务器刚关闭一个连接便退出。另一个能立刻绑定它的端口吗？设和不设该选项各会怎样？",
    ),
    run: reuse,
    why: Text(
        "the side that closes first keeps the connection in TIME_WAIT for a minute, so that no late segment is \
         taken for one of the next connection. Without SO_REUSEADDR that occupies the port, and a restart fails \
         until the minute is over.",
        "先关闭的一方要让连接在 TIME_WAIT 中停留一分钟，以免迟到的报文段被当成下一个连接的。没有 SO_REUSEADDR，端\
         口就被占着，这一分钟内重启都会失败。",
    ),
    read: &["zen-proto/src/server/listener.rs"],
    is_alone: false,
    is_slow: false,
};

fn reuse(notes: &mut Notes) -> Result<()> {
    let mut first = server("single", &[])?;
    let address = first.address();
    let mut client = first.served_client()?;
    first.signal(Signal::TERM)?;
    client.expect_end().context("a drain closes first")?;
    drop(client);
    first.ended_within(WAIT_LIMIT).context("it does not end")?;
    let waiting = || connections("thread-self", address.port(), TIME_WAIT).ok().filter(|all| !all.is_empty());
    let waits = wait_for(WAIT_LIMIT, waiting);
    waits.context("no connection is in TIME_WAIT")?;
    let bound = Socket::new(Domain::for_address(address), Type::STREAM, None)?.bind(&address.into());
    let error = bound.err().context("bind() without SO_REUSEADDR succeeds")?;
    saw!(
        notes,
        "old connections are in TIME_WAIT. Without the option: {error}",
        "旧连接处于 TIME_WAIT。不设该选项：{error}"
    );
    let port = address.port().to_string();
    let second = Server::run(Command::new(workspace::binary("zen-single")?).args(["-p", &port]))?;
    let time = time_answer(&mut second.client()?)?;
    saw!(
        notes,
        "with it: zen-single starts on port {port} again and answers in {time}",
        "设了该选项：zen-single 在端口 {port} 上再次启动，{time} 内回答",
        time = ms(time),
    );
    Ok(())
}

pub(super) const REUSEPORT: Experiment = Experiment {
    name: "reuseport",
    claim: Text(
        "SO_REUSEPORT spreads clients fairly, and better than a shared listener.",
        "SO_REUSEPORT 能公平地分配客户端，胜过共用一个监听套接字。",
    ),
    question: Text(
        "400 clients connect to 4 listeners of one port. How many does each get? One of the 4 accepts nothing: \
         what becomes of its clients? Then it is closed, as in a restart: what becomes of those in its queue?",
        "400 个客户端连接同一端口上的 4 个监听套接字。每个分到多少？其中一个从不 accept，它的客户端会怎样？随后它被关闭（就像重启），队列里的又会怎样？",
    ),
    run: reuseport,
    why: Text(
        "the kernel chooses a listener by a hash of the four values of a connection, before any process accepts. \
         So shares are random, and a client assigned to a stuck worker waits for it although others are free. \
         A queue belongs to its listener: closing that resets all connections in it. With one shared listener a free \
         worker takes the next, and a worker can be replaced without a loss.",
        "内核在询问任何进程之前，就用连接四元组的哈希选定了监听套接字。所以份额像掷骰子；被分给卡住的 worker 的客户端只能等它，哪怕别的都闲着。\
         队列属于它的监听套接字：一关闭，其中的连接全被复位。共用一个监听套接字时，谁空闲谁接下一个，替换 worker 也不会丢失连接。",
    ),
    read: &["zen-poll/examples/per_core.rs", "zen-proto/src/server/supervisor.rs"],
    is_alone: false,
    is_slow: false,
};

fn reuseport(notes: &mut Notes) -> Result<()> {
    const LISTENERS: usize = 4;
    const MANY: usize = 400;
    let mut address: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut listeners = Vec::new();
    for _ in 0..LISTENERS {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
        socket.bind(&address.into())?;
        socket.listen(MANY as i32)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    let clients = (0..MANY).map(|_| Client::connect(address)).collect::<Result<Vec<_>>>()?;
    let stuck = listeners.pop().context("there are four")?;
    let mut served = Vec::new();
    let shares: Vec<usize> = listeners
        .iter()
        .map(|listener| {
            let taken: Vec<TcpStream> =
                std::iter::from_fn(|| listener.accept().ok()).map(|(stream, _)| stream).collect();
            let count = taken.len();
            served.extend(taken);
            count
        })
        .collect();
    let waiting = MANY - served.len();
    saw!(
        notes,
        "{MANY} clients of {LISTENERS} listeners: {shares:?}, and {waiting} wait for the one that is stuck",
        "{MANY} 个客户端，{LISTENERS} 个监听套接字：{shares:?}，另有 {waiting} 个在等卡住的那一个"
    );
    let share = MANY / LISTENERS;
    ensure!(
        waiting > share / 2 && shares.iter().all(|&count| count.abs_diff(share) < share / 2),
        "expected about {share} clients at each listener"
    );
    drop(stuck);
    let lost = clients
        .into_iter()
        .filter_map(|mut client| client.try_read().ok())
        .filter(|came| *came == Received::Reset)
        .count();
    saw!(
        notes,
        "the stuck one is closed: {lost} clients are reset, although three listeners are free",
        "卡住的那个被关闭：{lost} 个客户端被复位，尽管另外三个都闲着"
    );
    ensure!(lost == waiting, "expected a reset of all {waiting} clients that waited");
    drop(served);

    notes.doing("a shared listener, one worker stopped");
    let shared = server("processes", &[])?;
    let worker = *shared.workers().last().context("there are workers")?;
    process::stop(worker)?;
    (0..CLIENTS).try_for_each(|_| shared.served_client().map(drop)).context("the other workers")?;
    saw!(
        notes,
        "zen-threaded --processes 4, one listener, one worker stopped: {CLIENTS} of {CLIENTS} clients are served",
        "zen-threaded --processes 4，共用监听套接字，一个 worker 被暂停：{CLIENTS} 个客户端全部得到服务"
    );
    Ok(())
}

/// The time after which nothing more is expected.
const SHORT: Duration = Duration::from_millis(250);

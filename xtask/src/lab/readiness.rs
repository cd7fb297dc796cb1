//! What it means that a descriptor is ready, and what it costs to find out.

use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use polling::{Events, Poller};
use rustix::event::epoll;

use super::Experiment;
use super::fixture::{Descriptors, faulty_example, ms, ratio, server, time_answer};
use super::notes::{Notes, Text};
use crate::harness::client::{APHORISMS, Received};
use crate::harness::{Client, Server, at_once};
use crate::matrix::syscalls;
use crate::servers;
use crate::workspace;

pub(super) const BLOCKING_FD: Experiment = Experiment {
    name: "blocking-fd",
    claim: Text(
        "Multiplexing is asynchronous blocking: it blocks in poll, and nowhere else.",
        "多路复用就是“异步阻塞”：只在 poll 里阻塞，别处不会。",
    ),
    question: Text(
        "two event loops share one listener that blocks. 8 clients keep asking, and a new one connects and says \
         nothing. Does any of them notice?",
        "两个事件循环共用一个阻塞的监听套接字。8 个客户端不停提问，又来一个一言不发的。有谁会察觉吗？",
    ),
    run: blocking_fd,
    why: Text(
        "both loops are notified of the new client. One accepts it. The other sleeps in accept() until the next client \
         connects, and serves none of its clients meanwhile. A descriptor that was ready a moment ago may not be ready \
         now, so every descriptor must be non-blocking.",
        "两个循环都得知来了新客户端。一个接到它，另一个连同自己的所有客户端睡在 accept() 里，直到再来一个。刚才就\
         绪的，现在未必还就绪；只有非阻塞的描述符才能让这无害。",
    ),
    read: &["zen-poll/examples/blocking_listener.rs", "zen-poll/src/acceptor.rs"],
    is_alone: true,
    is_slow: true,
};

fn blocking_fd(notes: &mut Notes) -> Result<()> {
    notes.doing("blocking_listener");
    let (arrivals, stuck) = stuck_clients(&faulty_example("blocking_listener")?, notes)?;
    saw!(
        notes,
        "blocking listener: new client {arrivals} leaves {stuck} of {ASKING} clients without an answer for {PATIENT:?}",
        "阻塞的监听套接字：第 {arrivals} 个新客户端使 {ASKING} 个中的 {stuck} 个在 {PATIENT:?} 内得不到回答"
    );
    let (fixed_arrivals, unanswered) = stuck_clients(&server("poll-loops", &["--delay", "5ms"])?, notes)?;
    saw!(
        notes,
        "zen-poll --loops 2: {fixed_arrivals} new clients, {unanswered} clients without an answer",
        "zen-poll --loops 2：{fixed_arrivals} 个新客户端，{unanswered} 个得不到回答"
    );
    ensure!(stuck > 0, "expected one loop of blocking_listener to get stuck");
    ensure!(unanswered == 0, "the fixed server left questions unanswered");
    Ok(())
}

/// Connects new clients until some of those that keep asking get no answer. Returns how many new clients connected, and
/// how many of the others get no answer.
fn stuck_clients(server: &Server, notes: &Notes) -> Result<(usize, usize)> {
    const ARRIVALS: usize = 5;
    let (stuck, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut arrivals = Vec::new();
    thread::scope(|scope| {
        let ask = || -> Result<()> {
            let mut client = server.client()?;
            client.set_timeout(PATIENT)?;
            while !is_over.load(Ordering::Relaxed) {
                client.send(APHORISMS[2].0)?;
                if client.read_some()? == Received::Nothing {
                    stuck.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
            Ok(())
        };
        let mut asking = Vec::new();
        for _ in 0..ASKING {
            asking.push(scope.spawn(ask));
            // While the loop that has clients works, the other one accepts the next.
            thread::sleep(Duration::from_millis(10));
        }
        while arrivals.len() < ARRIVALS && stuck.load(Ordering::Relaxed) == 0 {
            notes.doing(&format!("new client {}", arrivals.len() + 1));
            arrivals.push(server.client()?);
            thread::sleep(PATIENT * 3 / 2);
        }
        is_over.store(true, Ordering::Relaxed);
        for client in asking {
            client.join().ok().context("a client panicked")??;
        }
        Ok((arrivals.len(), stuck.load(Ordering::Relaxed)))
    })
}

/// How many clients keep asking.
const ASKING: usize = 8;

/// How long a client waits for an answer: ten times what one loop needs to answer all of them.
const PATIENT: Duration = Duration::from_millis(400);

pub(super) const POLL_EPOLL: Experiment = Experiment {
    name: "poll-epoll",
    claim: Text("select, poll and epoll are the same in essence.", "select、poll、epoll 本质上是一回事。"),
    question: Text(
        "one client asks, among 10 idle ones, 1,000 and 10,000. How does the cost of an answer grow with poll(), \
         and how with epoll?",
        "一个客户端在提问，旁边有 10、1,000、10,000 个空闲的。用 poll() 时一个回答的代价怎样增长？用 epoll 呢？",
    ),
    run: poll_epoll,
    why: Text(
        "each call hands poll() the whole list, and the kernel checks all of it to find the descriptor that is ready. \
         epoll keeps the list in the kernel, and a descriptor that becomes ready is added to a list of ready ones. \
         With ten clients they are indeed the same.",
        "每次调用都要把整个列表交给 poll()，内核从头走到尾才找出就绪的那个。epoll 早已有了列表，由变为就绪的那些主\
         动报到。只有十个客户端时，两者确实一样。",
    ),
    read: &["zen-poll/src/event_loop.rs", "zen-poll/src/registration.rs"],
    is_alone: true,
    is_slow: true,
};

fn poll_epoll(notes: &mut Notes) -> Result<()> {
    let crowds: &[usize] = if notes.is_brief() { &[10, 2_000] } else { &[10, 1_000, 10_000] };
    let most = crowds[crowds.len() - 1];
    let _raised = Descriptors::raise(most as u64 + 100)?;
    notes.doing("building zen-poll with poll() instead of epoll");
    let with_poll = poll_backend()?;
    let places = (most + 10).to_string();
    let arguments = ["-p", "0", "--max-connections", &places, "--idle-timeout", "0"];
    let mut growth = Vec::new();
    for (name, binary) in [("poll", with_poll), ("epoll", workspace::binary("zen-poll")?)] {
        let server = Server::run(Command::new(binary).args(arguments))?;
        let mut idle = Vec::new();
        let mut costs = Vec::new();
        for &crowd in crowds {
            notes.doing(&format!("{name}: {crowd} idle clients"));
            idle_until(&mut idle, crowd, server.address())?;
            costs.push(cost_of_an_answer(&server)?);
        }
        let listed: Vec<String> = costs.iter().zip(crowds).map(|(cost, n)| format!("{} with {n}", us(*cost))).collect();
        let grown = ratio(costs[costs.len() - 1], costs[0]);
        saw!(
            notes,
            "{name}: an answer costs the server {listed} idle clients, {grown:.1} times as much",
            "{name}：一个回答的代价（with 后为空闲客户端数）{listed}，增长为 {grown:.1} 倍",
            listed = listed.join(", "),
        );
        growth.push(grown);
    }
    ensure!(growth[0] > 3.0 && growth[0] > 2.0 * growth[1], "expected poll's cost to triple, and epoll's not");
    Ok(())
}

/// Returns the processor time that an answer costs the server, system calls included. It is that of the cheapest of
/// many short rounds, which other programs have disturbed least.
fn cost_of_an_answer(server: &Server) -> Result<Duration> {
    const QUESTIONS: u32 = 20;
    let mut client = server.served_client()?;
    let (start, mut costs) = (Instant::now(), Vec::new());
    while costs.len() < 3 || start.elapsed() < Duration::from_millis(400) {
        let before = server.usage().cpu;
        (0..QUESTIONS).try_for_each(|_| time_answer(&mut client).map(drop))?;
        costs.push(server.usage().cpu.saturating_sub(before) / QUESTIONS);
    }
    costs.into_iter().min().context("there were rounds")
}

/// Connects until there are `crowd` clients.
fn idle_until(idle: &mut Vec<Client>, crowd: usize, server: SocketAddr) -> Result<()> {
    while idle.len() < crowd {
        idle.push(Client::connect(server).with_context(|| format!("idle client {}", idle.len() + 1))?);
    }
    Ok(())
}

/// Builds zen-poll with poll() in place of epoll, once, into a separate folder. Returns the path of the binary.
fn poll_backend() -> Result<PathBuf> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(built) = BUILT.get() {
        return Ok(built.clone());
    }
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--package", "zen-poll", "--bin", "zen-poll", "--target-dir"]);
    cargo.arg(workspace::target()?.join("poll-backend"));
    // CARGO_ENCODED_RUSTFLAGS would override RUSTFLAGS.
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", "--cfg polling_test_poll_backend");
    let built = workspace::build_with(&mut cargo)?.and_then(|mut programs| programs.remove("zen-poll"));
    let built = built.context("zen-poll does not build with --cfg polling_test_poll_backend")?;
    Ok(BUILT.get_or_init(|| built).clone())
}

fn us(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    if micros < 100.0 { format!("{micros:.1} µs") } else { format!("{micros:.0} µs") }
}

pub(super) const STALE_KEY: Experiment = Experiment {
    name: "stale-key",
    claim: Text(
        "After close(), the next poll reports the descriptor, and the program can clean up then.",
        "close() 之后，下一次 poll 会报告该描述符，到时再清理。",
    ),
    question: Text(
        "3 clients connect, ask and leave, 150 times each. How many are not answered, if clients are known by \
         their descriptors?",
        "3 个客户端各连接、提问、离开 150 次。如果用描述符来标识客户端，有多少得不到回答？",
    ),
    run: stale_key,
    why: Text(
        "the kernel gives the lowest free number to the next connection. An action that was still pending for the \
         old one then hits the new one. A key with a generation never belongs to another client.",
        "内核把最小的空闲编号给下一个连接。本该对旧连接做的事，就做到了新连接头上。带代号（generation）的键绝不会\
         属于别的客户端。",
    ),
    read: &["zen-poll/examples/stale_key.rs", "zen-poll/src/event_loop.rs", "zen-poll/examples/raw.rs"],
    is_alone: false,
    is_slow: false,
};

fn stale_key(notes: &mut Notes) -> Result<()> {
    const VISITS: usize = 150;
    let mut lost = |name: &str, server: Server| -> Result<usize> {
        notes.doing(name);
        let visit = || -> bool { server.client().and_then(|mut client| time_answer(&mut client)).is_ok() };
        let lost = at_once(3, |_| Ok((0..VISITS).filter(|_| !visit()).count()))?.into_iter().sum();
        saw!(
            notes,
            "{name}: {lost} of {visits} clients leave without an answer",
            "{name}：{visits} 个客户端中有 {lost} 个没得到回答就离开",
            visits = 3 * VISITS,
        );
        Ok(lost)
    };
    let stale = lost("stale_key", faulty_example("stale_key")?)?;
    let raw = lost("raw", server("raw", &[])?)?;
    let fixed = lost("zen-poll", server("poll", &[])?)?;
    ensure!(stale > VISITS / 20, "expected stale_key to leave some clients without an answer");
    ensure!(raw + fixed == 0, "expected raw and zen-poll to answer all clients");
    Ok(())
}

pub(super) const EDGE: Experiment = Experiment {
    name: "edge",
    claim: Text("Edge-triggered is simply faster.", "边缘触发就是更快。"),
    question: Text(
        "a loop reads 16 bytes of a 25-byte question. Does the next wait report the rest, in level mode and \
         edge-triggered? If each descriptor is read until it is empty, how long does one client wait next to \
         another that never stops sending? How many system calls does an answer take either way?",
        "一个问题有 25 个字节，循环只读 16 个。下一次等待会报告剩下的吗？水平触发和边缘触发各如何？如果每个描述符都读到空为止，\
         旁边有个发送不停的客户端时，另一个要等多久？两种方式下，每个回答各要多少次系统调用？",
    ),
    run: edge,
    why: Text(
        "an edge is reported when bytes arrive, and never again for bytes that are left: a loop that does not read \
         to the end hangs. One that does needs another read to see that nothing is left, unless more has arrived by \
         then, so that an edge saves nothing for short questions. And a client that always has more keeps the loop \
         for ever, unless it has a bound and a list of unfinished clients. Level mode with one read for each event is \
         fair without either. Edge-triggered mode saves the calls that change the interest.",
        "边缘只在字节到达时报告一次，剩下的字节绝不再报：不读到底的循环就会挂住。读到底的循环要多读一次才知道空了（除非这时又来了数据），所以对短问题并不省；\
         而总有更多数据的客户端会一直霸占它，除非循环设了上限，并自己记下谁还没读完。水平触发、每个事件读一次，不需要这些也公平。\
         边缘触发省下的是修改关注事件的调用。",
    ),
    read: &["zen-poll/examples/half_drained.rs", "zen-poll/examples/edge.rs", "zen-poll/src/event_loop.rs"],
    is_alone: true,
    is_slow: false,
};

fn edge(notes: &mut Notes) -> Result<()> {
    let mut reported = [0; 2];
    for (reported, mode) in reported.iter_mut().zip([epoll::EventFlags::empty(), epoll::EventFlags::ET]) {
        let (reader, writer) = UnixStream::pair()?;
        let waits = watched(&[&reader], mode)?;
        rustix::io::write(&writer, APHORISMS[0].0)?;
        ensure!(ready(&waits)?.len() == 1, "the first was not reported");
        rustix::io::read(&reader, &mut [0; 16])?;
        *reported = ready(&waits)?.len();
    }
    let [level, edge] = reported;
    saw!(
        notes,
        "16 of 25 bytes are read; the next wait reports: level {level}, edge {edge}",
        "25 个字节读走 16 个；下一次等待报告的描述符数：水平 {level}，边缘 {edge}"
    );
    ensure!(level == 1 && edge == 0, "expected only level mode to report the rest");

    let answered = |server: Server| -> Result<bool> {
        let mut client = server.client()?;
        client.set_timeout(PATIENT)?;
        client.send(APHORISMS[0].0)?;
        Ok(client.read_some()? != Received::Nothing)
    };
    let half = answered(faulty_example("half_drained")?)?;
    let fixed = [answered(server("edge", &[])?)?, answered(server("poll", &[])?)?];
    ensure!(!half && fixed == [true; 2], "answered by half_drained: {half}, by edge and zen-poll: {fixed:?}");
    saw!(
        notes,
        "so half_drained, an edge-triggered server, sends no answer within {PATIENT:?}; edge, which reads to the \
         end, does, and so does zen-poll in level mode",
        "因此边缘触发的服务器 half_drained 在 {PATIENT:?} 内没有回答；读到底的 edge 有，水平触发的 zen-poll 也有"
    );

    let (fair, turns) = wait_beside_a_flood(epoll::EventFlags::empty())?;
    let (drained, reads) = wait_beside_a_flood(epoll::EventFlags::ET)?;
    saw!(
        notes,
        "next to a client that never stops for {FLOOD:?}: level, one read each: {fair} ({turns} reads before); \
         edge, drained: {drained} ({reads} reads before)",
        "旁边的客户端 {FLOOD:?} 内发送不停：水平触发、各读一次：等 {fair}（之前 {turns} 次读）；边缘触发、读到空：等 {drained}（之前 {reads} 次读）",
        fair = ms(fair),
        drained = ms(drained),
    );
    ensure!(drained > fair * 5 && reads > turns * 5, "expected a loop that drains to keep the other client waiting");

    let calls_of = |name| -> Result<f64> {
        notes.doing(&format!("{name} under strace"));
        Ok(syscalls::shares(servers::named(name)?, &[])?.values().sum())
    };
    let (level, edge) = (calls_of("poll")?, calls_of("edge")?);
    saw!(
        notes,
        "64 busy clients, system calls for an answer: level {level:.2}, edge {edge:.2}",
        "64 个忙碌的客户端，每个回答的系统调用数：水平 {level:.2}，边缘 {edge:.2}"
    );
    ensure!(level > 1.95 && edge > 1.95, "expected about 2 calls for an answer, or more, in both modes");
    Ok(())
}

/// Returns how long a client waits to be read while another floods the loop, and how many reads of the other
/// come first.
fn wait_beside_a_flood(mode: epoll::EventFlags) -> Result<(Duration, usize)> {
    let (busy, flood) = UnixStream::pair()?;
    let (quiet, asking) = UnixStream::pair()?;
    busy.set_nonblocking(true)?;
    let waits = watched(&[&busy, &quiet], mode)?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // It writes larger pieces than the loop reads, so that there is always more to read.
            while !is_over.load(Ordering::Relaxed) {
                if rustix::io::write(&flood, &[0; 65536]).is_err() {
                    break;
                }
            }
        });
        thread::sleep(Duration::from_millis(20));
        // The busy one is reported first, then the quiet one asks.
        let (start, mut reads, mut events) = (Instant::now(), 0, ready(&waits)?);
        rustix::io::write(&asking, b"?")?;
        let waited = loop {
            if events.contains(&1) {
                break start.elapsed();
            }
            while rustix::io::read(&busy, &mut [0; 64]).is_ok() {
                reads += 1;
                is_over.store(start.elapsed() > FLOOD, Ordering::Relaxed);
                if !mode.contains(epoll::EventFlags::ET) {
                    break;
                }
            }
            events = ready(&waits)?;
        };
        is_over.store(true, Ordering::Relaxed);
        // The writer may sleep in a full buffer.
        flood.shutdown(Shutdown::Both)?;
        Ok((waited, reads))
    })
}

/// Returns an epoll that watches these, each known by its index.
fn watched(all: &[&UnixStream], mode: epoll::EventFlags) -> Result<OwnedFd> {
    let waits = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (place, stream) in all.iter().enumerate() {
        epoll::add(&waits, stream, epoll::EventData::new_u64(place as u64), epoll::EventFlags::IN | mode)?;
    }
    Ok(waits)
}

/// Returns the indices of those that are ready within 100 ms.
fn ready(waits: &OwnedFd) -> Result<Vec<u64>> {
    let limit = rustix::time::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    let mut events = Vec::with_capacity(2);
    epoll::wait(waits, rustix::buffer::spare_capacity(&mut events), Some(&limit))?;
    Ok(events.into_iter().map(|event| event.data.u64()).collect())
}

const FLOOD: Duration = Duration::from_millis(300);

pub(super) const ONE_POLLER: Experiment = Experiment {
    name: "one-poller",
    claim: Text(
        "Several threads may wait on one poller, and share the events.",
        "多个线程可以在同一个 poller 上等待，分摊事件。",
    ),
    question: Text(
        "4 threads wait on one epoll, and one descriptor becomes ready. How many wake in level mode, \
         edge-triggered, and oneshot? What does a second thread see that waits on a `polling::Poller`?",
        "4 个线程在同一个 epoll 上等待，一个描述符就绪。水平触发、边缘触发、oneshot 各唤醒几个？第二个线程在 `polling::Poller` 上等待会看到什么？",
    ),
    run: one_poller,
    why: Text(
        "in level mode the descriptor stays in the ready list until it is read, so every waiter finds it. An edge \
         is reported once, and oneshot disables the descriptor after one report, so that one thread owns it. \
         `Poller` keeps its events behind one lock: a second wait returns immediately with nothing, and a loop around \
         it spins. So each loop here has a poller of its own.",
        "水平触发时，描述符在被读走之前一直留在就绪列表里，所以每个等待者都会发现它。边缘只报告一次；oneshot 报告一次后就停用该描述符，\
         于是由一个线程独占。`Poller` 用一把锁保护事件：第二个 wait 立即返回空手，外面的循环便空转。所以这里每个事件循环都有自己的 poller。",
    ),
    read: &["zen-poll/src/event_loop.rs", "zen-poll/src/acceptor.rs"],
    is_alone: true,
    is_slow: false,
};

fn one_poller(notes: &mut Notes) -> Result<()> {
    let (level, edge) = (woken(epoll::EventFlags::empty())?, woken(epoll::EventFlags::ET)?);
    let oneshot = woken(epoll::EventFlags::ONESHOT)?;
    saw!(
        notes,
        "of {WAITING} threads in epoll_wait, one event wakes {level} in level mode, {edge} edge-triggered, \
         {oneshot} oneshot",
        "{WAITING} 个线程在 epoll_wait 中，一个事件唤醒的线程数：水平触发 {level}，边缘触发 {edge}，oneshot {oneshot}"
    );
    ensure!(level > 1 && oneshot == 1, "expected level mode to wake several threads, and oneshot one");

    let (poller, is_waiting) = (Poller::new()?, AtomicBool::new(false));
    let returned = thread::scope(|scope| -> Result<usize> {
        let first = scope.spawn(|| {
            is_waiting.store(true, Ordering::Relaxed);
            poller.wait(&mut Events::new(), Some(Duration::from_millis(500)))
        });
        while !is_waiting.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(50));
        let (start, mut returned) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_millis(100) {
            let found = poller.wait(&mut Events::new(), Some(Duration::from_millis(100)))?;
            ensure!(found == 0, "the second thread found an event");
            returned += 1;
        }
        first.join().ok().context("the first panicked")??;
        Ok(returned)
    })?;
    saw!(
        notes,
        "a second thread in Poller::wait(100 ms): it returns {returned} times in 100 ms, with nothing",
        "第二个线程调用 Poller::wait（100 毫秒）：100 毫秒内返回 {returned} 次，一无所获"
    );
    ensure!(returned > 100, "expected the second wait to return immediately, more than 100 times");
    Ok(())
}

/// Returns how many threads that wait on one epoll are woken by one event.
fn woken(mode: epoll::EventFlags) -> Result<usize> {
    let (reader, writer) = std::io::pipe()?;
    let waits = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&waits, &reader, epoll::EventData::new_u64(0), epoll::EventFlags::IN | mode)?;
    at_once(WAITING + 1, |n| {
        if n == WAITING {
            thread::sleep(Duration::from_millis(100));
            rustix::io::write(&writer, b"!")?;
            return Ok(0);
        }
        let limit = rustix::time::Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
        let mut events = Vec::with_capacity(1);
        let found = epoll::wait(&waits, rustix::buffer::spare_capacity(&mut events), Some(&limit))?;
        // The byte is not read, so the descriptor stays ready while each thread works on its event for a moment.
        thread::sleep(Duration::from_millis(50));
        Ok(found)
    })
    .map(|found| found.into_iter().sum())
}

const WAITING: usize = 4;

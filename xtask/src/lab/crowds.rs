//! Very many clients: how many there can be, and what each of them costs.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Experiment;
use super::fixture::{
    Descriptors, ESTABLISHED, connections, cpu_of, faulty_example, idle_clients, ms, server, time_answer,
};
use super::loads::load;
use super::notes::{Notes, Text};
use crate::harness::group::Group;
use crate::harness::network::in_own_network;
use crate::harness::process::{bytes_in, memory_of};
use crate::harness::{Client, Missing, Server, WAIT_LIMIT, wait_for, zen_client};
use crate::workspace;

pub(super) const PORTS: Experiment = Experiment {
    name: "ports",
    claim: Text(
        "A server can have 65,535 connections at most, one for each port.",
        "一台服务器最多只能有 65,535 个连接，每个端口一个。",
    ),
    question: Text(
        "one client's address opens connections to one server until that fails. What fails? Does it also fail at a \
         second address of the server? How many connections can one port of a host hold in all?",
        "从一个客户端地址不断向一个服务器建立连接，直到失败。失败的原因是什么？换成服务器的第二个地址也会失败吗？一台主机的一个端口总共能容纳多少连接？",
    ),
    run: ports,
    why: Text(
        "a connection is known by both addresses and both ports. For one pair of addresses and one port of the \
         server, only the client's port can differ, and the kernel takes it from a range (by default 28,232 of \
         them). The next address has as many again. What a server runs out of is descriptors and memory.",
        "一个连接由双方的地址和双方的端口标识。地址固定、服务器端口固定时，只有客户端端口可变，内核从一个范围里选取（默认 28,232 个）。\
         换一个地址，又有同样多。服务器真正会用完的是描述符和内存。",
    ),
    read: &["zen-proto/src/server/listener.rs", "zen-poll/src/event_loop.rs"],
    is_alone: true,
    is_slow: true,
};

fn ports(notes: &mut Notes) -> Result<()> {
    // On a host of its own, so that no other program runs out of ports meanwhile.
    let brief = notes.is_brief();
    in_own_network(|| {
        ports_of_one_address(notes)?;
        many_addresses(notes, if brief { 500 } else { 8_750 })
    })
}

fn ports_of_one_address(notes: &mut Notes) -> Result<()> {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    const PORTS: usize = 2_000;
    let _raised = Descriptors::raise(2 * PORTS as u64 + 500)?;
    let usual = fs::read_to_string(RANGE)?;
    fs::write(RANGE, "40000 41999").map_err(|_| Missing("the right to change a range of ports".to_owned()))?;
    // The server's port is outside the range, because it would be one port less for clients.
    let server = idle_server("0.0.0.0", 1060, PORTS * 2 + 10)?;
    let port = server.address().port();
    let mut held = Vec::new();
    notes.doing("from one address, until it fails");
    let error = loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(stream) => held.push(stream),
            Err(error) => break error,
        }
        ensure!(held.len() <= PORTS, "more connections than ports");
    };
    let first = held.len();
    saw!(
        notes,
        "a range of {PORTS} ports, one pair of addresses: {first} connections, then {error}",
        "端口范围 {PORTS} 个，一对地址：{first} 个连接，然后 {error}"
    );
    ensure!(first == PORTS && error.kind() == ErrorKind::AddrNotAvailable, "{first} connections, then {error:?}");
    notes.doing("to a second address");
    for _ in 0..PORTS {
        held.push(TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), port))?);
    }
    let all = wait_for(WAIT_LIMIT, || {
        let all = connections("thread-self", port, ESTABLISHED).ok()?.len();
        (all == 2 * PORTS).then_some(all)
    });
    let all = all.context("fewer connections to the second address")?;
    saw!(notes, "with a second address of the server: {all}", "再用服务器的第二个地址：{all} 个");
    fs::write(RANGE, usual.trim())?;
    Ok(())
}

fn many_addresses(notes: &mut Notes, each: usize) -> Result<()> {
    const ADDRESSES: u8 = 8;
    let _raised = Descriptors::raise(each as u64 + 100)?;
    let (mut servers, mut clients, mut port) = (Vec::new(), Vec::new(), 0);
    for last in 1..=ADDRESSES {
        let host = Ipv4Addr::new(127, 0, 0, last).to_string();
        let server = idle_server(&host, port, each + 20)?;
        port = server.address().port();
        let mut client = zen_client("load", server.address())?;
        client.args(["-c", "1", "-r", "1", "-d", "60s", "--idle", &each.to_string()]);
        client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        clients.push(Group::start(&mut client)?);
        servers.push(server);
    }
    let wanted = each * usize::from(ADDRESSES);
    let held = || -> usize { servers.iter().map(|server| descriptors(server.pid())).sum() };
    let all = wait_for(WAIT_LIMIT, || {
        // Counting takes time from those that connect.
        thread::sleep(Duration::from_millis(500));
        let all = held();
        notes.doing(&format!("{all} of {wanted}"));
        (all >= wanted).then_some(all)
    });
    all.with_context(|| format!("only {} of {wanted} connections", held()))?;
    let time = time_answer(&mut Client::connect(servers[0].address())?)?;
    saw!(
        notes,
        "port {port} on {ADDRESSES} addresses of one host: {wanted} connections held; a new client is answered in \
         {time}",
        "一台主机的 {ADDRESSES} 个地址，都是端口 {port}：保持 {wanted} 个连接；新客户端在 {time} 内得到回答",
        time = ms(time),
    );
    Ok(())
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Starts zen-poll without an idle timeout, for `most` silent clients.
fn idle_server(host: &str, port: u16, most: usize) -> Result<Server> {
    let (port, most) = (port.to_string(), most.to_string());
    let mut command = Command::new(workspace::binary("zen-poll")?);
    Server::run(command.args([
        host,
        "-p",
        &port,
        "--max-connections",
        &most,
        "--idle-timeout",
        "0",
        "--backlog",
        "4096",
    ]))
}

pub(super) const TEN_THOUSAND: Experiment = Experiment {
    name: "ten-thousand",
    claim: Text("Threads cannot serve 10,000 clients.", "线程服务不了 10,000 个客户端。"),
    question: Text(
        "10,000 clients are connected, a thread for each, and 1 % of them wait for an answer at any time. How many \
         answers fail or are late? And if all 10,000 ask as fast as they can, how do threads compare with one \
         event loop?",
        "10,000 个客户端各有一个线程，任一时刻有 1 % 在等回答。有多少回答失败或迟到？如果 10,000 个全都尽快提问，线程与单个事件循环相比如何？",
    ),
    run: ten_thousand,
    why: Text(
        "a sleeping thread costs memory and no processor. At 1 % busy only 100 threads are awake at a time, and \
         the scheduler has little to do. Saturated, every answer needs a switch of threads, where the loop takes \
         many clients in one wait: it costs more, and still works.",
        "睡着的线程只占内存，不占处理器。1 % 忙时只有约 100 个线程醒着，调度器几乎没事可做。饱和时每个回答都要切换线程，\
         而事件循环一次等待就能处理许多客户端：线程更贵，但仍然能用。",
    ),
    read: &["zen-threaded/src/per_connection.rs", "zen-poll/src/event_loop.rs"],
    is_alone: true,
    is_slow: true,
};

fn ten_thousand(notes: &mut Notes) -> Result<()> {
    let clients: usize = if notes.is_brief() { 2_000 } else { 10_000 };
    let _raised = Descriptors::raise(clients as u64 + 200)?;
    let (most, busy) = ((clients + 10).to_string(), clients / 100);
    let mut saturated = Vec::new();
    for name in ["per-connection", "poll"] {
        if name == "per-connection" {
            notes.doing("1 % busy");
            let server = server(name, &["--max-connections", &most, "--delay", "100ms"])?;
            // Each of these takes 100 ms of sleep, so this many a second keep 1 % of the clients waiting.
            let rate = (busy * 10).to_string();
            let (connections, mut threads) = (clients.to_string(), 0);
            let seen = thread::scope(|scope| {
                let loading =
                    scope.spawn(|| load(&server, &["-c", &connections, "-r", &rate, "-d", "3s", "--warmup", "2s"]));
                while !loading.is_finished() {
                    threads = threads.max(fs::read_dir(format!("/proc/{}/task", server.pid()))?.count());
                    thread::sleep(Duration::from_millis(200));
                }
                loading.join().ok().context("the load panicked")?
            })?;
            let late = seen.p99();
            saw!(
                notes,
                "{threads} threads, about {busy} clients busy: {answers} answers, {failures} failures, p99 {p99} \
                 for 100 ms of work",
                "{threads} 个线程，约 {busy} 个客户端在忙：{answers} 个回答，{failures} 个失败，100 毫秒的工作 p99 为 {p99}",
                answers = seen.answers,
                failures = seen.failures(),
                p99 = ms(late),
            );
            ensure!(threads >= clients && seen.failures() == 0, "expected a thread for each client, and no failure");
            ensure!(late.as_millis() < 500, "the p99 is 500 ms or more, for 100 ms of work");
        }
        notes.doing("saturated");
        let server = server(name, &["--max-connections", &most])?;
        let before = cpu_of(&server)?;
        let seen = load(&server, &["-c", &clients.to_string(), "-d", "2s", "--warmup", "1s"])?;
        let cpu = cpu_of(&server)?.saturating_sub(before);
        saw!(
            notes,
            "{name}, {clients} busy: {rate:.0} answers a second, p99 {p99}, {failures} failures; {cpu} of processor",
            "{name}，{clients} 个全忙：每秒 {rate:.0} 个回答，p99 {p99}，{failures} 个失败；处理器时间 {cpu}",
            rate = seen.answers_per_second,
            p99 = ms(seen.p99()),
            failures = seen.failures(),
            cpu = ms(cpu),
        );
        ensure!(seen.failures() == 0, "{name}: {:?}", seen.failures);
        saturated.push(seen);
    }
    let [threads, event_loop] = &saturated[..] else { bail!("two were measured") };
    saw!(
        notes,
        "saturated, the loop gives {ratio:.1} times the threads' answers",
        "饱和时，事件循环的回答数是线程的 {ratio:.1} 倍",
        ratio = event_loop.answers_per_second / threads.answers_per_second,
    );
    Ok(())
}

pub(super) const STACKS: Experiment = Experiment {
    name: "stacks",
    claim: Text(
        "10,000 threads need 10 to 80 GB of memory for their stacks.",
        "10,000 个线程的栈要占 10 到 80 GB 内存。",
    ),
    question: Text(
        "a server has a thread for each of its idle clients. How much address space does each cost, and how much \
         memory?",
        "服务器为每个空闲客户端开一个线程。每个线程占多少地址空间？占多少内存？",
    ),
    run: stacks,
    why: Text(
        "a stack reserves addresses. The kernel allocates a page when it is first used, and an idle thread has used \
         two or three. Page tables and the kernel's own stack (16 KiB a thread) are added to that. The claim \
         multiplies only the reserved address space.",
        "栈只是对地址的承诺。页面在第一次被触及时才分配，空闲线程只碰过两三页。此外还有页表，以及每个线程 16 KiB 的内核栈。\
         那种说法乘的只是地址空间。",
    ),
    read: &["zen-threaded/src/per_connection.rs", "zen-threaded/examples/unbounded.rs"],
    is_alone: true,
    is_slow: true,
};

fn stacks(notes: &mut Notes) -> Result<()> {
    let clients: usize = if notes.is_brief() { 500 } else { 10_000 };
    let _raised = Descriptors::raise(clients as u64 + 200)?;
    let most = (clients + 10).to_string();
    let crowded = ["--max-connections", &most, "--idle-timeout", "0"];
    let mut costs = Vec::new();
    for (name, server) in [
        ("unbounded (std's 2 MiB)", faulty_example("unbounded")?),
        ("zen-threaded", server("per-connection", &crowded)?),
        ("zen-poll", server("poll", &crowded)?),
    ] {
        notes.doing(name);
        let held = || -> Result<[u64; 4]> {
            Ok([
                memory_of(&server.processes(), "status", "VmSize:")?,
                memory_of(&server.processes(), "smaps_rollup", "Pss:")?,
                memory_of(&server.processes(), "status", "VmPTE:")?,
                bytes_in("/proc/meminfo", "KernelStack:")?,
            ])
        };
        let before = held()?;
        let idle = idle_clients(&server, clients)?;
        let after = held()?;
        let [space, pss, tables, kernel] =
            std::array::from_fn(|n| after[n].saturating_sub(before[n]) as f64 / clients as f64 / 1024.0);
        saw!(
            notes,
            "{name}, {clients} idle clients, KiB for each: address space {space:.0}; memory {pss:.1}, page tables \
             {tables:.1}, kernel stacks {kernel:.0}",
            "{name}，{clients} 个空闲客户端，每个占（KiB）：地址空间 {space:.0}；内存 {pss:.1}，页表 {tables:.1}，内核栈 {kernel:.0}"
        );
        costs.push((space, pss + tables + kernel));
        drop(idle);
    }
    ensure!(costs[0].0 > 1024.0 && costs[0].0 > costs[0].1 * 20.0, "expected std's stacks to be mostly address space");
    ensure!(costs[1].0 < costs[0].0 / 2.0, "expected zen-threaded to reserve less than half of it");
    ensure!(costs[2].1 < costs[1].1 / 5.0, "expected an event loop to need less than a fifth of the memory");
    Ok(())
}

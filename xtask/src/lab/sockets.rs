//! What a socket is: its port, processes that share it, its states, and when written bytes are sent.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use socket2::SockRef;

use super::Experiment;
use super::fixture::{CLOSE_WAIT_STATE, ESTABLISHED, connections, faulty_example, median, ms, server, time_answer};
use super::notes::{Notes, Text};
use crate::harness::client::{APHORISMS, Received};
use crate::harness::group::Group;
use crate::harness::{Server, WAIT_LIMIT, process, wait_for};
use crate::servers;

pub(super) const ONE_PORT: Experiment = Experiment {
    name: "one-port",
    claim: Text(
        "accept() gives each client a new port of the server.",
        "accept() 会给每个客户端分配服务器上的一个新端口。",
    ),
    question: Text(
        "50 clients are connected to zen-poll. How many different ports of the server do their connections use?",
        "50 个客户端连上了 zen-poll。这些连接用到服务器的几个不同端口？",
    ),
    run: one_port,
    why: Text(
        "a connection is known by four values: both addresses and both ports. accept() returns a new descriptor, \
         and the port stays the listener's. The clients' ports differ, because each client's kernel chose one.",
        "一个连接由四个值标识：双方的地址和双方的端口。accept() 返回的是新的描述符，端口仍是监听套接字的那一个。\
         各不相同的是客户端的端口，由客户端一侧的内核选定。",
    ),
    read: &["zen-proto/src/server/listener.rs", "zen-poll/src/acceptor.rs"],
    is_alone: false,
    is_slow: false,
};

fn one_port(notes: &mut Notes) -> Result<()> {
    const CLIENTS: usize = 50;
    let server = server("poll", &[])?;
    // When it has served a client and sleeps, all its threads and their descriptors exist.
    server.served_client()?.leave()?;
    server.wait_until_asleep(WAIT_LIMIT)?;
    let before = server.usage().descriptors;
    let clients = server.served_clients(CLIENTS)?;
    let descriptors = server.usage().descriptors - before;
    let held = connections("thread-self", server.address().port(), ESTABLISHED)?;
    let theirs: BTreeSet<u16> = held.iter().map(|(_, remote)| *remote).collect();
    let ours: BTreeSet<u16> = held.iter().map(|(local, _)| *local).collect();
    drop(clients);
    saw!(
        notes,
        "{count} connections, {descriptors} new descriptors: {ports} port of the server, {others} of the clients",
        "{count} 个连接，{descriptors} 个新描述符：服务器一侧 {ports} 个端口，客户端一侧 {others} 个",
        count = held.len(),
        ports = ours.len(),
        others = theirs.len(),
    );
    ensure!(held.len() == CLIENTS && descriptors == CLIENTS && theirs.len() == CLIENTS, "50 of each were expected");
    ensure!(ours.into_iter().eq([server.address().port()]), "only the listener's port was expected");
    Ok(())
}

pub(super) const WAKE_ACCEPT: Experiment = Experiment {
    name: "wake-accept",
    claim: Text(
        "Closing the listener wakes the thread that sleeps in accept().",
        "关闭监听套接字会唤醒睡在 accept() 里的线程。",
    ),
    question: Text(
        "a thread sleeps in accept(). Another closes the descriptor, or shuts the socket down, or connects to it. \
         Which wakes the first? And which process notices a shutdown() of a listener that two share?",
        "一个线程睡在 accept() 里。另一个线程关闭该描述符，或对套接字调用 shutdown()，或者连接它。哪一种会唤醒前者？\
         如果两个进程共用监听套接字，shutdown() 会影响谁？",
    ),
    run: wake_accept,
    why: Text(
        "close() only removes the descriptor; the sleeping call holds the socket itself, which goes on listening. \
         shutdown() changes the socket, so every process that shares it is woken, and it can never accept again. \
         The servers here use neither: accept() returns after a tick of 250 ms, and the thread checks whether it \
         must stop.",
        "close() 只是收回一个编号；睡着的系统调用握有套接字本身，它还在监听。shutdown() 改变的是套接字，所以共用它的每个进程都被唤醒，\
         而且它再也不能 accept。这里的服务器两种都不用：accept() 每 250 毫秒（一个 tick）返回一次，线程借机查看是否该停止。",
    ),
    read: &["zen-proto/src/server/listener.rs", "zen-threaded/src/workers.rs"],
    is_alone: true,
    is_slow: false,
};

fn wake_accept(notes: &mut Notes) -> Result<()> {
    let (listener, accepted) = sleeper()?;
    let address = listener.local_addr()?;
    // Safe here: nothing uses the number again, and no other experiment runs at this time.
    nix::unistd::close(listener.as_raw_fd())?;
    let is_asleep = accepted.recv_timeout(QUIET).is_err();
    saw!(
        notes,
        "close(): {QUIET:?} later accept() {state}",
        "close()：{QUIET:?} 之后 accept() {state}",
        state = state(notes, is_asleep),
    );
    let client = TcpStream::connect(address).context("the closed listener")?;
    let outcome = accepted.recv_timeout(WAIT_LIMIT).context("accept() does not return a new client")?;
    ensure!(is_asleep && outcome.is_ok(), "expected accept() to sleep until a client connects: {outcome:?}");
    saw!(
        notes,
        "then a client connects to the \"closed\" listener, and accept() returns it",
        "随后有客户端连上这个“已关闭”的监听套接字，accept() 返回了它"
    );
    drop(client);

    let (listener, accepted) = sleeper()?;
    let start = Instant::now();
    SockRef::from(listener).shutdown(Shutdown::Both)?;
    let outcome = accepted.recv_timeout(WAIT_LIMIT).context("shutdown() does not wake accept()")?;
    let Err(error) = outcome else { bail!("it accepted a client after shutdown()") };
    saw!(
        notes,
        "shutdown(): accept() returns after {time}: {error}",
        "shutdown()：{time} 后 accept() 返回：{error}",
        time = ms(start.elapsed()),
    );

    let shared = TcpListener::bind(("127.0.0.1", 0))?;
    let mut sharer = Server::start_on(&shared, servers::named("workers")?, &[])?;
    sharer.served_client()?;
    SockRef::from(&shared).shutdown(Shutdown::Both)?;
    let status = sharer.ended_within(WAIT_LIMIT).context("the other process does not exit")?;
    saw!(
        notes,
        "shutdown() in another process that shares the listener: zen-threaded ends, {status}",
        "在共用监听套接字的另一个进程里 shutdown()：zen-threaded 结束，{status}"
    );
    ensure!(status.code() == Some(1), "expected exit status 1");

    let mut stopped = server("workers", &[])?;
    stopped.wait_until_asleep(WAIT_LIMIT)?;
    let start = Instant::now();
    stopped.stop(WAIT_LIMIT)?;
    saw!(
        notes,
        "SIGTERM, with 4 workers asleep in accept(): zen-threaded has drained after {time}",
        "4 个 worker 都睡在 accept() 里时发 SIGTERM：zen-threaded 在 {time} 后排空退出",
        time = ms(start.elapsed()),
    );
    Ok(())
}

fn state(notes: &Notes, is_asleep: bool) -> &'static str {
    let text = if is_asleep { Text("still sleeps", "仍在睡眠") } else { Text("has returned", "已经返回") };
    text.in_(notes.language())
}

/// Starts a thread that sleeps in accept(). Its result is sent through the channel.
fn sleeper() -> Result<(&'static TcpListener, Receiver<std::io::Result<SocketAddr>>)> {
    // Leaked, because one experiment closes its descriptor by hand.
    let listener: &'static TcpListener = Box::leak(Box::new(TcpListener::bind(("127.0.0.1", 0))?));
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("sleeper".into()).spawn(move || {
        // The receiver may have given up.
        let _ = sender.send(listener.accept().map(|(_, client)| client));
    })?;
    thread::sleep(Duration::from_millis(100));
    Ok((listener, receiver))
}

pub(super) const SENT: Experiment = Experiment {
    name: "sent",
    claim: Text("send() returned without an error, so the bytes have arrived.", "send() 没有报错，所以数据已经到达。"),
    question: Text(
        "a server is killed. Which of a client's next writes fails? Another server is stopped and reads nothing. \
         How many bytes does send() take?",
        "服务器被杀死了。客户端接下来的哪一次写会失败？另一个服务器被暂停，什么也不读。send() 还能收下多少字节？",
    ),
    run: sent,
    why: Text(
        "send() copies bytes into this kernel's buffer. The first write after the peer has gone finds a connection \
         that still accepts bytes; the peer's reset comes as the answer to it, and only the next write reports \
         that. A stopped peer's kernel acknowledges what its buffers hold. Only an answer of the application \
         proves that it has read a question.",
        "send() 只是把数据拷进本机内核的缓冲区。对端消失后的第一次写，连接看上去仍可写；对端的复位正是对这次写的回应，\
         要到下一次写才报告出来。被暂停的对端，其内核照样确认缓冲区装得下的数据。只有应用层的回答才能证明问题已被读到。",
    ),
    read: &["zen-proto/src/conversation.rs", "zen-client/src/check.rs"],
    is_alone: false,
    is_slow: false,
};

fn sent(notes: &mut Notes) -> Result<()> {
    let killed = server("single", &[])?;
    let client = killed.served_client()?;
    drop(killed);
    let write = || client.stream().try_clone().and_then(|mut stream| stream.write(APHORISMS[0].0));
    let first = write();
    thread::sleep(QUIET / 5);
    let second = write();
    let outcome = |result: &std::io::Result<usize>| match result {
        Ok(bytes) => format!("{bytes}"),
        Err(error) => error.to_string(),
    };
    saw!(
        notes,
        "the server is dead. First send(): {first}; second send(): {second}",
        "服务器已死。第一次 send()：{first}；第二次 send()：{second}",
        first = outcome(&first),
        second = outcome(&second),
    );
    ensure!(first.is_ok(), "the first send() fails");
    let kind = second.err().context("the second send() does not fail")?.kind();
    ensure!([ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&kind), "the second send() fails with {kind}");

    let stopped = server("poll", &[])?;
    let mut client = stopped.served_client()?;
    process::stop(stopped.pid())?;
    let mut taken = 0;
    // The kernel still moves bytes to the peer, which leaves room for more, so a full buffer is tried again.
    let full = wait_for(WAIT_LIMIT, || {
        let mut room = 0;
        while let Ok(n @ 1..) = client.push(&[b' '; 65536]) {
            room += n;
        }
        taken += room;
        thread::sleep(Duration::from_millis(20));
        (room == 0).then_some(())
    });
    full.context("the buffers never fill up")?;
    ensure!(client.try_read()? == Received::Nothing, "a stopped server has answered");
    saw!(
        notes,
        "a stopped server: send() takes {kib} KiB, and the server has read none of them",
        "服务器被暂停：send() 收下了 {kib} KiB，而服务器一个字节也没读",
        kib = taken / 1024,
    );
    ensure!(taken > 64 << 10, "expected send() to take more than 64 KiB");
    stopped.signal(Signal::CONT)
}

pub(super) const CLOSE_WAIT: Experiment = Experiment {
    name: "close-wait",
    claim: Text(
        "Connections in CLOSE_WAIT are the kernel's affair; a timeout of TCP clears them.",
        "CLOSE_WAIT 是内核的事，TCP 超时后自会清理。",
    ),
    question: Text(
        "20 clients ask and leave. How many connections of the faulty example are in CLOSE_WAIT, and how many a \
         second later?",
        "20 个客户端提问后离开。有缺陷的示例有多少连接处于 CLOSE_WAIT？一秒之后呢？",
    ),
    run: close_wait,
    why: Text(
        "CLOSE_WAIT means: the peer has ended, and this program has not closed. The kernel waits for close(), and \
         has no timeout for it. Each is a descriptor that the program still holds: here, a copy in a list that \
         nothing is ever taken out of.",
        "CLOSE_WAIT 的意思是：对端已经结束，而本程序还没有关闭。内核等的是 close()，对此没有任何超时。每一个都对应程序仍持有的一个描述符：\
         这里是列表里的一份拷贝，而列表只进不出。",
    ),
    read: &["zen-threaded/examples/forgets_to_close.rs", "zen-threaded/src/per_connection.rs"],
    is_alone: false,
    is_slow: false,
};

fn close_wait(notes: &mut Notes) -> Result<()> {
    const CLIENTS: usize = 20;
    let mut left_by = |name: &str, server: Server| -> Result<usize> {
        notes.doing(name);
        for _ in 0..CLIENTS {
            server.served_client()?.end_sending()?;
        }
        let left = || connections("thread-self", server.address().port(), CLOSE_WAIT_STATE).map(|all| all.len());
        server.wait_until_asleep(WAIT_LIMIT)?;
        let first = left()?;
        thread::sleep(Duration::from_secs(1));
        let later = left()?;
        saw!(
            notes,
            "{name}: {CLIENTS} clients have left; {first} connections in CLOSE_WAIT, {later} a second later",
            "{name}：{CLIENTS} 个客户端已离开；{first} 个连接处于 CLOSE_WAIT，一秒后 {later} 个"
        );
        Ok(later)
    };
    let faulty = left_by("forgets_to_close", faulty_example("forgets_to_close")?)?;
    let fixed = left_by("zen-threaded", server("per-connection", &[])?)?;
    ensure!(faulty == CLIENTS, "expected {CLIENTS} connections in CLOSE_WAIT at forgets_to_close");
    ensure!(fixed == 0, "expected no connection in CLOSE_WAIT at zen-threaded");
    Ok(())
}

pub(super) const TWO_OWNERS: Experiment = Experiment {
    name: "two-owners",
    claim: Text("close() sends FIN and frees the port.", "close() 会发送 FIN 并释放端口。"),
    question: Text(
        "a child process holds a copy of a connection and of a listener. The parent closes its own. What does the \
         client read, and can the port be bound again?",
        "子进程持有连接和监听套接字的一份拷贝。父进程关闭自己的那份。客户端会读到什么？端口还能再次绑定吗？",
    ),
    run: two_owners,
    why: Text(
        "close() gives up one reference; FIN is sent, and the port is free, when the last one goes. A child that \
         was started meanwhile may hold one without knowing. shutdown() acts on the socket, whichever process holds \
         it. Rust opens every descriptor with CLOEXEC, so that a child gets only what it is given.",
        "close() 只是放弃一个引用；最后一个引用消失时才发送 FIN、释放端口。期间启动的子进程可能在不知情的情况下握着一份。\
         shutdown() 作用于套接字本身，与谁持有无关。Rust 打开的描述符都带 CLOEXEC，子进程只得到明确交给它的那些。",
    ),
    read: &["zen-proto/src/server/supervisor.rs", "zen-proto/src/server/listener.rs"],
    is_alone: false,
    is_slow: false,
};

fn two_owners(notes: &mut Notes) -> Result<()> {
    // A child with the descriptor as its stdin: what a child without CLOEXEC inherits by accident.
    let holder =
        |descriptor: OwnedFd| Group::start(Command::new("sleep").arg("60").stdin(descriptor).stdout(Stdio::null()));
    let heard = |client: &mut TcpStream| -> Result<bool> {
        client.set_read_timeout(Some(QUIET))?;
        match client.read(&mut [0; 16]) {
            Ok(0) => Ok(true),
            Ok(n) => bail!("{n} bytes came"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    };
    for (how, with_shutdown) in [("close()", false), ("shutdown()", true)] {
        let (stream, mut client, _) = pair()?;
        let child = holder(stream.try_clone()?.into())?;
        if with_shutdown {
            stream.shutdown(Shutdown::Both)?;
        }
        drop(stream);
        let before = heard(&mut client)?;
        saw!(
            notes,
            "a child holds a copy, the parent calls {how}: end of file at the client: {before}",
            "子进程持有拷贝，父进程调用 {how}：客户端读到文件结尾：{before}"
        );
        ensure!(before == with_shutdown, "expected only shutdown() to end the connection");
        drop(child);
        if !with_shutdown {
            ensure!(heard(&mut client)?, "the last close did not send FIN");
            saw!(notes, "the child ends, too: end of file at the client", "子进程也结束：客户端读到文件结尾");
        }
    }
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let child = holder(listener.try_clone()?.into())?;
    drop(listener);
    let error = TcpListener::bind(address).err().context("the port was not in use")?;
    saw!(notes, "the listener is closed, a child holds a copy: {error}", "监听套接字已关闭，但子进程持有拷贝：{error}");
    drop(child);
    TcpListener::bind(address).context("the port was not free")?;
    // The parent keeps an open listener, and this child is given nothing.
    let listener = TcpListener::bind(address)?;
    let child = Group::start(Command::new("sleep").arg("60").stdin(Stdio::null()).stdout(Stdio::null()))?;
    drop(listener);
    // The child's exec() closes them a moment after its parent continues.
    let free = wait_for(WAIT_LIMIT, || TcpListener::bind(address).ok());
    free.context("the child has inherited the listener in spite of CLOEXEC")?;
    drop(child);
    saw!(notes, "with CLOEXEC: the port is free, although a child lives", "使用 CLOEXEC：子进程还在，端口却已可用");
    Ok(())
}

pub(super) const NAGLE: Experiment = Experiment {
    name: "nagle",
    claim: Text("Two small writes are as good as one.", "分两次写小块数据，与一次写完没有区别。"),
    question: Text(
        "a server writes each answer in two pieces. How long does a client wait for an answer, without TCP_NODELAY \
         and with it?",
        "服务器把每个回答分两次写出。不设 TCP_NODELAY 和设了之后，客户端各要等多久？",
    ),
    run: nagle,
    why: Text(
        "Nagle's algorithm keeps a small second piece back until the first is acknowledged. The client's kernel \
         delays that acknowledgement for about 40 ms, hoping for data to send along. TCP_NODELAY ends the waiting; \
         to write an answer in one piece avoids it, too, and saves a system call.",
        "Nagle 算法把第二个小片段扣住，直到第一个片段得到确认。而客户端内核会把确认推迟约 40 毫秒，指望有数据可以捎带。\
         TCP_NODELAY 取消这种等待；把回答一次写完同样可以避免，还省一次系统调用。",
    ),
    read: &["zen-proto/src/server/listener.rs", "zen-proto/src/conversation.rs"],
    is_alone: true,
    is_slow: false,
};

fn nagle(notes: &mut Notes) -> Result<()> {
    let without = in_two_pieces(false)?;
    let with = in_two_pieces(true)?;
    let real = server("single", &[])?;
    let mut client = real.served_client()?;
    let whole = median((0..EXCHANGES).map(|_| time_answer(&mut client)).collect::<Result<Vec<_>>>()?);
    saw!(notes, "two writes, without TCP_NODELAY: {time}", "分两次写，不设 TCP_NODELAY：{time}", time = ms(without));
    saw!(notes, "two writes, with TCP_NODELAY: {time}", "分两次写，设 TCP_NODELAY：{time}", time = ms(with));
    saw!(notes, "zen-single, one write: {time}", "zen-single，一次写完：{time}", time = ms(whole));
    ensure!(
        without > Duration::from_millis(20) && without > with * 5,
        "expected only the writes without TCP_NODELAY to wait for an acknowledgement"
    );
    Ok(())
}

/// Returns the median time of an answer that is written in two pieces.
fn in_two_pieces(no_delay: bool) -> Result<Duration> {
    let (mut stream, mut client, _) = pair()?;
    stream.set_nodelay(no_delay)?;
    client.set_read_timeout(Some(WAIT_LIMIT))?;
    let answering = thread::spawn(move || -> std::io::Result<()> {
        let mut question = [0; 22];
        while stream.read_exact(&mut question).is_ok() {
            stream.write_all(b"comp")?;
            stream.write_all(b"lex.")?;
        }
        Ok(())
    });
    let mut exchange = || -> std::io::Result<Duration> {
        let start = Instant::now();
        client.write_all(APHORISMS[2].0)?;
        client.read_exact(&mut [0; 8])?;
        Ok(start.elapsed())
    };
    // On a new connection, Linux acknowledges immediately. It delays acknowledgements only after some exchanges.
    let times = (0..EXCHANGES).map(|_| exchange()).collect::<std::io::Result<Vec<_>>>()?;
    drop(client);
    answering.join().ok().context("the answering thread panicked")??;
    Ok(median(times[EXCHANGES / 2..].to_vec()))
}

/// Returns both ends of a connection, and its listener.
fn pair() -> Result<(TcpStream, TcpStream, TcpListener)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((listener.accept()?.0, client, listener))
}

const EXCHANGES: usize = 40;

/// The time after which nothing more is expected.
const QUIET: Duration = Duration::from_millis(300);

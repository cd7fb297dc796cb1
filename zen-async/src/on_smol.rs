//! Tasks on smol, a runtime made of small crates. This file uses its executor, its reactor, and its blocking pool.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{ErrorKind, Result};
use std::net::{Shutdown, TcpStream};
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use smol::channel::bounded;
use smol::{Async, Executor, Timer};
use zen_proto::server::{Accepted, Connection, READ_SIZE, Server, Stop, TICK, reset, shared_heartbeat};
use zen_proto::{Answer, Want, server};

use crate::options::Answering;
use crate::sweeper::Sweeper;

/// The state that all tasks share.
struct Shared {
    server: &'static Server,
    sweeper: &'static Sweeper,
    executor: &'static Executor<'static>,
    answering: Answering,
}

/// Serves on `threads` threads, of which this is the first, until no more clients are accepted and the last is closed.
pub(crate) fn serve(server: &'static Server, threads: usize, answering: Answering) -> anyhow::Result<()> {
    let sweeper: &'static Sweeper = Box::leak(Box::default());
    server.stop.on_request(|| sweeper.wake_all());
    let executor: &'static Executor<'static> = Box::leak(Box::default());
    for number in 2..=threads {
        thread::Builder::new()
            .name(format!("executor-{number}"))
            .spawn(|| smol::block_on(executor.run(smol::future::pending::<()>())))
            .context("cannot start all threads: lower --threads")?;
    }
    let shared = Box::leak(Box::new(Shared { server, sweeper, executor, answering }));
    executor.spawn(sweep(sweeper, &server.stop)).detach();
    smol::block_on(executor.run(accept_all(shared)))
}

/// Accepts clients and spawns a task for each.
async fn accept_all(shared: &'static Shared) -> anyhow::Result<()> {
    let Shared { server, sweeper, executor, .. } = *shared;
    let mut listener = server.listener().map(Async::new_nonblocking).transpose()?;
    let (alive, all_closed) = bounded::<()>(1);
    for attempt in 1_usize.. {
        match server.try_accept() {
            Accepted::Client(stream, mut connection) => {
                let alive = alive.clone();
                // The future of an async fn would contain the connection twice, as its argument and as a local
                // variable. This block contains it once, which saves memory for each client.
                let serve_client = async move {
                    let result = converse(shared, stream, &mut connection).await;
                    connection.close(result);
                    drop(alive);
                };
                executor.spawn(serve_client).detach();
            }
            Accepted::Next => {}
            Accepted::WouldBlock => {
                let is_draining = server.stop.is_requested();
                let retry_at = is_draining.then(|| Instant::now() + TICK);
                let Some(listener) = &listener else { break };
                let readable = pin!(listener.readable());
                // The task is suspended here until a client connects.
                let _ = sweeper.wait_until(readable, retry_at, &server.stop, is_draining).await;
            }
            Accepted::Later(pause) => _ = Timer::after(pause).await,
            Accepted::Closed => break,
        }
        if attempt % ACCEPTS_PER_TURN == 0 {
            smol::future::yield_now().await; // the existing clients are served in between
        }
    }
    listener.take();
    drop(alive);
    let _ = all_closed.recv().await; // nothing is ever sent: this returns when the last task has dropped its `alive`
    Ok(())
}

/// Does what the conversation wants, until it is over. The future is kept small: each client has one, also while idle.
async fn converse(shared: &'static Shared, stream: TcpStream, connection: &mut Connection) -> Result<()> {
    let Shared { server, sweeper, .. } = *shared;
    let stream = &register(stream)?;
    let mut has_room = true;
    let mut read_at = Instant::now();
    loop {
        let is_draining = server.stop.is_requested();
        let now = Instant::now();
        match connection.next(now) {
            Want::Read => {
                let bytes = if connection.is_expired(now) {
                    try_read(stream)?
                } else {
                    // The task is suspended here while the client is silent.
                    let bytes = pin!(read(stream, now.duration_since(read_at) < QUICK));
                    match sweeper.wait_until(bytes, connection.deadline(), &server.stop, is_draining).await {
                        Some(bytes) => Some(bytes?),
                        None => continue,
                    }
                };
                match bytes.as_deref() {
                    Some([]) => connection.received_eof(),
                    Some(mut input) => {
                        read_at = Instant::now();
                        while let Some(question) = connection.next_question(&mut input, read_at) {
                            let answer = answer(shared, question).await;
                            connection.answer(answer);
                        }
                    }
                    None => connection.read_blocked(now),
                }
            }
            // This does not wait. If there is no room, the question timeout begins, in which the client must read.
            Want::Write if has_room || connection.is_expired(now) => match try_write(stream, connection.outgoing())? {
                Some(n) => {
                    has_room = true;
                    connection.sent(n, Instant::now());
                }
                None => {
                    has_room = false;
                    connection.write_blocked(now);
                }
            },
            Want::Write => {
                // The task is suspended here while the client does not read.
                let n = {
                    let written = pin!(write(stream, connection.outgoing()));
                    sweeper.wait_until(written, connection.deadline(), &server.stop, is_draining).await
                };
                if let Some(n) = n {
                    has_room = true;
                    connection.sent(n?, Instant::now());
                }
            }
            Want::EndSending => {
                stream.get_ref().shutdown(Shutdown::Write)?;
                connection.ended_sending(now);
            }
            Want::Close => return Ok(()),
            Want::Reset => {
                reset(stream);
                return Ok(());
            }
        }
    }
}

/// Computes an answer in the task, after an awaited delay, or in the blocking pool.
async fn answer(shared: &'static Shared, question: &[u8]) -> Option<Answer> {
    let server = shared.server;
    match shared.answering {
        // In the task: its thread works or sleeps here, and runs no other task meanwhile.
        Answering::InTask => server.answer(question),
        // Awaited: the task is suspended here, and its thread runs other tasks.
        Answering::Awaited => {
            if let Some(delay) = server.delay() {
                Timer::after(delay).await;
            }
            server.answer_now(question)
        }
        // In the blocking pool: one of its threads works or sleeps here, and this thread runs other tasks.
        Answering::InPool => {
            let question = question.to_vec();
            smol::unblock(move || server.answer(&question)).await
        }
    }
}

/// Registers a client's socket with the reactor.
fn register(stream: TcpStream) -> Result<Async<TcpStream>> {
    Async::new_nonblocking(stream)
}

thread_local! {
    /// The read buffer. Each thread has one, so that a waiting client needs none.
    static BUFFER: RefCell<[u8; READ_SIZE]> = const { RefCell::new([0; READ_SIZE]) };
}

/// Waits until the client has sent something, and reads it. An empty result is the end of file.
///
/// A turn lasts from a read until the task wants to read again; the client's silence is not part of it. After a quick
/// one, the next question may have arrived already. So the task tries recv() first; if that succeeds, it saves an
/// epoll_ctl() and the wait. After a slow turn the task waits for the reactor first. Otherwise it would be served
/// before clients that have waited longer: the executor lets the reactor check for events only after about 200 polls of
/// tasks, and the thread `async-io` begins to do so only after some milliseconds.
async fn read(stream: &Async<TcpStream>, was_quick: bool) -> Result<Vec<u8>> {
    if was_quick {
        smol::future::yield_now().await; // the other tasks run first, even if this client always has a question
        if let Some(bytes) = try_read(stream)? {
            return Ok(bytes);
        }
    }
    loop {
        poll_fn(|context| stream.poll_readable(context)).await?;
        if let Some(bytes) = try_read(stream)? {
            return Ok(bytes);
        }
    }
}

/// Reads without waiting. Returns `None` if nothing is there.
fn try_read(stream: &Async<TcpStream>) -> Result<Option<Vec<u8>>> {
    BUFFER.with_borrow_mut(|buffer| match server::try_read(stream.get_ref(), buffer) {
        Ok(n) => Ok(Some(buffer[..n].to_vec())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    })
}

/// Waits until there is room for some of `bytes`, and writes it.
async fn write(stream: &Async<TcpStream>, bytes: &[u8]) -> Result<usize> {
    loop {
        poll_fn(|context| stream.poll_writable(context)).await?;
        if let Some(n) = try_write(stream, bytes)? {
            return Ok(n);
        }
    }
}

/// Writes without waiting. Returns `None` if there is no room.
fn try_write(stream: &Async<TcpStream>, bytes: &[u8]) -> Result<Option<usize>> {
    match server::try_write(stream.get_ref(), bytes) {
        Ok(n) => Ok(Some(n)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Wakes the tasks whose deadline has passed, once a tick, and more often while draining. Also records the heartbeat
/// that a service manager or a parent process may expect.
async fn sweep(sweeper: &'static Sweeper, stop: &'static Stop) {
    loop {
        shared_heartbeat(Instant::now());
        Timer::after(if stop.is_requested() { TICK / 10 } else { TICK }).await;
        sweeper.sweep(Instant::now());
    }
}

/// A turn is quick if it took less than this, from a read until the task wants to read again.
const QUICK: Duration = Duration::from_millis(1);

/// The number of attempts to accept after which the existing clients are served.
const ACCEPTS_PER_TURN: usize = 64;

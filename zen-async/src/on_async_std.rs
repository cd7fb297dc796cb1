//! Tasks on async-std, the legacy runtime: it is discontinued (RUSTSEC-2025-0052). Compare with `on_smol`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{Error, Result};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use async_global_executor::GlobalExecutorConfig;
use async_std::channel::bounded;
use async_std::io::{Read, WriteExt};
use async_std::net::TcpStream;
use async_std::task;
use smol::Async; // because the listener of async-std has no `readable()`, only `accept()`
use zen_proto::server::{Accepted, Connection, READ_SIZE, Server, Stop, TICK, reset, shared_heartbeat};
use zen_proto::{Answer, Want, server};

use crate::options::Answering;
use crate::sweeper::Sweeper;

/// The state that all tasks share.
struct Shared {
    server: &'static Server,
    sweeper: &'static Sweeper,
    answering: Answering,
}

/// Serves until no more clients are accepted and the last is closed. This thread accepts, and `threads` others serve.
pub(crate) fn serve(server: &'static Server, threads: usize, answering: Answering) -> anyhow::Result<()> {
    let sweeper: &'static Sweeper = Box::leak(Box::default());
    server.stop.on_request(|| sweeper.wake_all());
    // This must come before any call of async-std, which would otherwise start a thread for each processor. A variable
    // of the environment takes precedence over `threads`. `with_env_var` makes it the one that `options.rs` has
    // checked, instead of ASYNC_GLOBAL_EXECUTOR_THREADS.
    let config = GlobalExecutorConfig::default().with_env_var("ASYNC_STD_THREAD_COUNT");
    let config = config.with_min_threads(threads).with_max_threads(threads);
    async_global_executor::init_with_config(config.with_thread_name_fn(|| "executor".into()));
    let shared = Box::leak(Box::new(Shared { server, sweeper, answering }));
    task::spawn(sweep(sweeper, &server.stop));
    task::block_on(accept_all(shared))
}

/// Accepts clients and spawns a task for each.
async fn accept_all(shared: &'static Shared) -> anyhow::Result<()> {
    let Shared { server, sweeper, .. } = *shared;
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
                task::spawn(serve_client);
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
            Accepted::Later(pause) => task::sleep(pause).await,
            Accepted::Closed => break,
        }
        if attempt % ACCEPTS_PER_TURN == 0 {
            task::yield_now().await; // the existing clients are served in between
        }
    }
    listener.take();
    drop(alive);
    let _ = all_closed.recv().await; // nothing is ever sent: this returns when the last task has dropped its `alive`
    Ok(())
}

/// Does what the conversation wants, until it is over. The future is kept small: each client has one, also while idle.
async fn converse(shared: &'static Shared, stream: std::net::TcpStream, connection: &mut Connection) -> Result<()> {
    let Shared { server, sweeper, .. } = *shared;
    let stream = &register(stream)?;
    let mut has_room = true;
    loop {
        let is_draining = server.stop.is_requested();
        let now = Instant::now();
        match connection.next(now) {
            Want::Read => {
                let bytes = if connection.is_expired(now) {
                    try_read(stream).await?
                } else {
                    // The task is suspended here while the client is silent.
                    let bytes = pin!(read(stream));
                    match sweeper.wait_until(bytes, connection.deadline(), &server.stop, is_draining).await {
                        Some(bytes) => Some(bytes?),
                        None => continue,
                    }
                };
                match bytes.as_deref() {
                    Some([]) => connection.received_eof(),
                    Some(mut input) => {
                        let read_at = Instant::now();
                        while let Some(question) = connection.next_question(&mut input, read_at) {
                            let answer = answer(shared, question).await;
                            connection.answer(answer);
                        }
                    }
                    None => connection.read_blocked(now),
                }
            }
            // This does not wait. If there is no room, the question timeout begins, in which the client must read.
            Want::Write if has_room || connection.is_expired(now) => {
                match try_write(stream, connection.outgoing()).await? {
                    Some(n) => {
                        has_room = true;
                        connection.sent(n, Instant::now());
                    }
                    None => {
                        has_room = false;
                        connection.write_blocked(now);
                    }
                }
            }
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
                stream.shutdown(Shutdown::Write)?;
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
                task::sleep(delay).await;
            }
            server.answer_now(question)
        }
        // In the blocking pool: one of its threads works or sleeps here, and this thread runs other tasks.
        Answering::InPool => {
            let question = question.to_vec();
            task::spawn_blocking(move || server.answer(&question)).await
        }
    }
}

/// Registers a client's socket with the reactor. If this fails, async-std panics; `catch` turns the panic into an
/// error.
fn register(stream: std::net::TcpStream) -> Result<TcpStream> {
    server::catch(|| TcpStream::from(stream)).ok_or_else(|| Error::other("cannot register the socket"))
}

thread_local! {
    /// The read buffer. Each thread has one, so that a waiting client needs none.
    static BUFFER: RefCell<[u8; READ_SIZE]> = const { RefCell::new([0; READ_SIZE]) };
}

/// Waits until the client has sent something, and reads it. An empty result is the end of file.
///
/// async-std always tries recv() before it waits for the reactor. This is fair even after a slow answer. The main
/// thread runs no client's task, so it or the thread `async-io` waits in the reactor meanwhile, and wakes the tasks of
/// the other clients.
async fn read(stream: &TcpStream) -> Result<Vec<u8>> {
    task::yield_now().await; // the other tasks run first, even if this client always has a question
    read_when_ready(stream).await
}

/// Reads without waiting. Returns `None` if nothing is there.
async fn try_read(stream: &TcpStream) -> Result<Option<Vec<u8>>> {
    poll_once(read_when_ready(stream)).await.transpose()
}

async fn read_when_ready(stream: &TcpStream) -> Result<Vec<u8>> {
    poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let read = Pin::new(&mut &*stream).poll_read(context, buffer);
            read.map_ok(|n| buffer[..n].to_vec())
        })
    })
    .await
}

/// Waits until there is room for some of `bytes`, and writes it.
async fn write(mut stream: &TcpStream, bytes: &[u8]) -> Result<usize> {
    stream.write(bytes).await
}

/// Writes without waiting. Returns `None` if there is no room.
async fn try_write(stream: &TcpStream, bytes: &[u8]) -> Result<Option<usize>> {
    poll_once(write(stream, bytes)).await.transpose()
}

/// Polls `event` once, and returns its value if it is ready.
async fn poll_once<T>(event: impl Future<Output = T>) -> Option<T> {
    let mut event = pin!(event);
    poll_fn(|context| match event.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Wakes the tasks whose deadline has passed, once a tick, and more often while draining. Also records the heartbeat
/// that a service manager or a parent process may expect.
async fn sweep(sweeper: &'static Sweeper, stop: &'static Stop) {
    loop {
        shared_heartbeat(Instant::now());
        task::sleep(if stop.is_requested() { TICK / 10 } else { TICK }).await;
        sweeper.sweep(Instant::now());
    }
}

/// The number of attempts to accept after which the existing clients are served.
const ACCEPTS_PER_TURN: usize = 64;

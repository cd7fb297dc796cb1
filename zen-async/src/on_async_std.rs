//! Coroutines on async-std, discontinued (RUSTSEC-2025-0052): the frozen twin of `on_smol`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::Result;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use async_global_executor::GlobalExecutorConfig;
use async_std::channel::{Sender, bounded};
use async_std::io::{Read, WriteExt};
use async_std::net::TcpStream;
use async_std::task;
use smol::Async; // async-std's own reactor; async-std lends it to nobody
use zen_proto::Want;
use zen_proto::server::{Accepted, CHUNK, Client, Server, Stop, TICK, beat_together, catch, reset};

use crate::sweeper::Sweeper;

/// What all coroutines share.
struct Shared {
    server: &'static Server,
    sweeper: &'static Sweeper,
    offload: bool,
}

/// Serves on `threads` threads beside this one, which only accepts, until there are no more clients.
pub(crate) fn serve(server: &'static Server, threads: usize, offload: bool) -> anyhow::Result<()> {
    let sweeper: &'static Sweeper = Box::leak(Box::default());
    server.stop.on_request(|| sweeper.wake_all());
    // Before anything of async-std is called, which would start a thread for each processor.
    let config = GlobalExecutorConfig::default().with_env_var("ASYNC_STD_THREAD_COUNT");
    let config = config.with_min_threads(threads).with_max_threads(threads);
    async_global_executor::init_with_config(config.with_thread_name_fn(|| "executor".into()));
    let shared = Box::leak(Box::new(Shared { server, sweeper, offload }));
    task::spawn(sweep(sweeper, &server.stop));
    task::block_on(accept_all(shared))
}

/// Takes clients and starts a coroutine for each.
async fn accept_all(shared: &'static Shared) -> anyhow::Result<()> {
    let Shared { server, sweeper, .. } = *shared;
    let mut listener = server.listener().map(Async::new_nonblocking).transpose()?;
    let (alive, everyone_has_gone) = bounded::<()>(1);
    let mut accepted = 0_usize;
    loop {
        match server.try_accept() {
            Accepted::Client(stream, client) => {
                let conversation = converse(shared, stream, client, alive.clone());
                task::spawn(conversation);
                accepted += 1;
                if accepted.is_multiple_of(ACCEPTS_A_TURN) {
                    task::yield_now().await; // those inside want their turn too
                }
            }
            Accepted::Next => {}
            Accepted::Nobody => {
                let is_draining = server.stop.is_requested();
                let look_at = is_draining.then(|| Instant::now() + TICK);
                let Some(listener) = &listener else { break };
                let readable = pin!(listener.readable());
                // The coroutine sleeps here until a client comes.
                let _ = sweeper.in_time(readable, look_at, &server.stop, is_draining).await;
            }
            Accepted::Later(pause) => task::sleep(pause).await,
            Accepted::NoMore => break,
        }
    }
    listener.take();
    drop(alive);
    let _ = everyone_has_gone.recv().await; // an error, when the last has dropped its end
    Ok(())
}

/// Serves one client until its conversation is over. What it owns in between is what an idle client costs.
async fn converse(shared: &'static Shared, stream: std::net::TcpStream, client: Client, _alive: Sender<()>) {
    let Shared { server, sweeper, offload, .. } = *shared;
    let mut conversation = server.conversation();
    // It panics when the reactor cannot take the stream: the end of this coroutine.
    let Some(stream) = catch(|| TcpStream::from(stream)) else { return };
    let mut has_room = true;
    let result = loop {
        let now = Instant::now();
        let is_draining = server.stop.is_requested();
        if is_draining {
            conversation.drain(now);
        }
        let (deadline, is_up) = (conversation.expires_at(), conversation.is_due(now));
        match conversation.wants() {
            Want::Read => {
                task::yield_now().await; // while bytes are there, reading never suspends: the others would starve
                let heard = if is_up {
                    look(&stream).await
                } else {
                    // The coroutine sleeps here while its client is silent.
                    let hearing = pin!(hear(&stream));
                    match sweeper.in_time(hearing, deadline, &server.stop, is_draining).await {
                        Some(heard) => heard.map(Some),
                        None => continue,
                    }
                };
                match heard {
                    Ok(Some(bytes)) if bytes.is_empty() => conversation.received_eof(),
                    Ok(Some(bytes)) if offload => {
                        let received = move || {
                            conversation.received(&bytes, Instant::now(), &mut |question| server.sage.answer(question));
                            conversation
                        };
                        conversation = task::spawn_blocking(received).await;
                    }
                    Ok(Some(bytes)) => {
                        conversation.received(&bytes, Instant::now(), &mut |question| server.sage.answer(question));
                    }
                    Ok(None) => conversation.timed_out(now),
                    Err(error) => break Err(error),
                }
            }
            // A try: if it finds no room, the client's time to make some begins.
            Want::Write if is_up || has_room => match say_now(&stream, conversation.outgoing()).await {
                Ok(Some(n)) => {
                    has_room = true;
                    conversation.sent(n, Instant::now());
                }
                Ok(None) => {
                    has_room = false;
                    conversation.sent(0, now);
                    conversation.timed_out(now);
                }
                Err(error) => break Err(error),
            },
            Want::Write => {
                // The coroutine sleeps here while its client does not read.
                let said = {
                    let saying = pin!(say(&stream, conversation.outgoing()));
                    sweeper.in_time(saying, deadline, &server.stop, is_draining).await
                };
                match said {
                    Some(Ok(n)) => {
                        has_room = true;
                        conversation.sent(n, Instant::now());
                    }
                    Some(Err(error)) => break Err(error),
                    None => {}
                }
            }
            Want::EndSending => match stream.shutdown(Shutdown::Write) {
                Ok(()) => conversation.ended_sending(now),
                Err(error) => break Err(error),
            },
            Want::Close => break Ok(()),
            Want::Reset => {
                reset(&stream);
                break Ok(());
            }
        }
    };
    client.gone(&conversation, result);
}

thread_local! {
    /// What is read into: one for each thread, so that a waiting client owns none.
    static CHUNK_OF_THREAD: RefCell<[u8; CHUNK]> = const { RefCell::new([0; CHUNK]) };
}

/// Waits until the client speaks, and reads it; nothing is the end of file.
async fn hear(stream: &TcpStream) -> Result<Vec<u8>> {
    poll_fn(|context| {
        CHUNK_OF_THREAD.with_borrow_mut(|chunk| {
            let read = Pin::new(&mut &*stream).poll_read(context, chunk);
            read.map_ok(|n| chunk[..n].to_vec())
        })
    })
    .await
}

/// The same without waiting.
async fn look(stream: &TcpStream) -> Result<Option<Vec<u8>>> {
    now_or_not(hear(stream)).await.transpose()
}

/// Waits until there is room for some of `bytes`, and writes it.
async fn say(mut stream: &TcpStream, bytes: &[u8]) -> Result<usize> {
    stream.write(bytes).await
}

/// The same without waiting.
async fn say_now(stream: &TcpStream, bytes: &[u8]) -> Result<Option<usize>> {
    now_or_not(say(stream, bytes)).await.transpose()
}

/// What comes of `event`, if that is there already.
async fn now_or_not<T>(event: impl Future<Output = T>) -> Option<T> {
    let mut event = pin!(event);
    poll_fn(|context| match event.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Once a tick; more often while everyone waits for the last to go. The service manager, if it asks, hears of it.
async fn sweep(sweeper: &'static Sweeper, stop: &'static Stop) {
    loop {
        beat_together(Instant::now());
        task::sleep(if stop.is_requested() { TICK / 10 } else { TICK }).await;
        sweeper.sweep(Instant::now());
    }
}

/// So many clients are let in before those inside get their turn again.
const ACCEPTS_A_TURN: usize = 64;

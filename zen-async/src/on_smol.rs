//! Coroutines on smol: small parts, of which this file uses an executor, a reactor and a pool of threads.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{ErrorKind, Result};
use std::net::{Shutdown, TcpStream};
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use smol::channel::{Sender, bounded};
use smol::{Async, Executor, Timer};
use zen_proto::Want;
use zen_proto::server::{Accepted, CHUNK, Client, Server, Stop, TICK, beat_together, receive_now, reset, send_now};

use crate::sweeper::Sweeper;

/// What all coroutines share.
struct Shared {
    server: &'static Server,
    sweeper: &'static Sweeper,
    executor: &'static Executor<'static>,
    offload: bool,
}

/// Serves on `threads` threads, of which this is the first, until there are no more clients.
pub(crate) fn serve(server: &'static Server, threads: usize, offload: bool) -> anyhow::Result<()> {
    let sweeper: &'static Sweeper = Box::leak(Box::default());
    server.stop.on_request(|| sweeper.wake_all());
    let executor: &'static Executor<'static> = Box::leak(Box::default());
    for number in 2..=threads {
        thread::Builder::new()
            .name(format!("executor-{number}"))
            .spawn(|| smol::block_on(executor.run(smol::future::pending::<()>())))
            .context("cannot start all threads: lower --threads")?;
    }
    let shared = Box::leak(Box::new(Shared { server, sweeper, executor, offload }));
    executor.spawn(sweep(sweeper, &server.stop)).detach();
    smol::block_on(executor.run(accept_all(shared)))
}

/// Takes clients and starts a coroutine for each.
async fn accept_all(shared: &'static Shared) -> anyhow::Result<()> {
    let Shared { server, sweeper, executor, .. } = *shared;
    let mut listener = server.listener().map(Async::new_nonblocking).transpose()?;
    let (alive, everyone_has_gone) = bounded::<()>(1);
    let mut accepted = 0_usize;
    loop {
        match server.try_accept() {
            Accepted::Client(stream, client) => {
                let conversation = converse(shared, stream, client, alive.clone());
                executor.spawn(conversation).detach();
                accepted += 1;
                if accepted.is_multiple_of(ACCEPTS_A_TURN) {
                    smol::future::yield_now().await; // those inside want their turn too
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
            Accepted::Later(pause) => _ = Timer::after(pause).await,
            Accepted::NoMore => break,
        }
    }
    listener.take();
    drop(alive);
    let _ = everyone_has_gone.recv().await; // an error, when the last has dropped its end
    Ok(())
}

/// Serves one client until its conversation is over. What it owns in between is what an idle client costs.
async fn converse(shared: &'static Shared, stream: TcpStream, client: Client, _alive: Sender<()>) {
    let Shared { server, sweeper, offload, .. } = *shared;
    let mut conversation = server.conversation();
    let stream = match Async::new_nonblocking(stream) {
        Ok(stream) => stream,
        Err(error) => return client.gone(&conversation, Err(error)),
    };
    let mut has_room = true;
    let mut heard_at = Instant::now();
    let result = loop {
        let now = Instant::now();
        let is_draining = server.stop.is_requested();
        if is_draining {
            conversation.drain(now);
        }
        let (deadline, is_up) = (conversation.expires_at(), conversation.is_due(now));
        match conversation.wants() {
            Want::Read => {
                let heard = if is_up {
                    look(&stream).await
                } else {
                    // The coroutine sleeps here while its client is silent.
                    let hearing = pin!(hear(&stream, now.duration_since(heard_at) < QUICK));
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
                        conversation = smol::unblock(received).await;
                    }
                    Ok(Some(bytes)) => {
                        heard_at = Instant::now();
                        conversation.received(&bytes, heard_at, &mut |question| server.sage.answer(question));
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
            Want::EndSending => match stream.get_ref().shutdown(Shutdown::Write) {
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
///
/// After a quick turn it may have spoken already: a look costs less than the reactor. But the reactor gets its own
/// turn only after two hundred of the coroutines'; after a long one it is asked at once, for the sake of who else waits.
async fn hear(stream: &Async<TcpStream>, was_quick: bool) -> Result<Vec<u8>> {
    if was_quick {
        smol::future::yield_now().await; // one that always has something to say lets the others have their turn
        if let Some(bytes) = look(stream).await? {
            return Ok(bytes);
        }
    }
    loop {
        poll_fn(|context| stream.poll_readable(context)).await?;
        if let Some(bytes) = look(stream).await? {
            return Ok(bytes);
        }
    }
}

/// The same without waiting.
async fn look(stream: &Async<TcpStream>) -> Result<Option<Vec<u8>>> {
    CHUNK_OF_THREAD.with_borrow_mut(|chunk| match receive_now(stream.get_ref(), chunk) {
        Ok(n) => Ok(Some(chunk[..n].to_vec())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    })
}

/// Waits until there is room for some of `bytes`, and writes it.
async fn say(stream: &Async<TcpStream>, bytes: &[u8]) -> Result<usize> {
    loop {
        poll_fn(|context| stream.poll_writable(context)).await?;
        if let Some(n) = say_now(stream, bytes).await? {
            return Ok(n);
        }
    }
}

/// The same without waiting.
async fn say_now(stream: &Async<TcpStream>, bytes: &[u8]) -> Result<Option<usize>> {
    match send_now(stream.get_ref(), bytes) {
        Ok(n) => Ok(Some(n)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Once a tick; more often while everyone waits for the last to go. The service manager, if it asks, hears of it.
async fn sweep(sweeper: &'static Sweeper, stop: &'static Stop) {
    loop {
        beat_together(Instant::now());
        Timer::after(if stop.is_requested() { TICK / 10 } else { TICK }).await;
        sweeper.sweep(Instant::now());
    }
}

/// A turn that took no longer, from hearing a client to having answered it.
const QUICK: Duration = Duration::from_millis(1);

/// So many clients are let in before those inside get their turn again.
const ACCEPTS_A_TURN: usize = 64;

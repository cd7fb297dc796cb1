//! Tasks on tokio, the most common runtime, in its usual style.
//!
//! tokio contains what `own_executor` builds by hand. With `--threads 1` this thread polls all tasks
//! (`current_thread`). With `--threads N` N threads poll them, and steal tasks from each other (`multi_thread`).
//!
//! The style differs from that of `src/on_smol.rs`, and costs more for an idle client. Each task owns its buffer, even
//! while its client is idle. Each read has a timer, and also waits for a stop request. tokio caches the readiness of
//! each socket, and calls recv() only if the socket may be readable.
//!
//! **Limit.** The thread that waits for events also runs the task that the first event wakes. While that task blocks,
//! no thread waits for events, even if another thread is idle. So with `--threads 2 --delay 700ms`, two clients that
//! ask at the same moment may be answered one after the other. `block_in_place` around the answer lets another thread
//! wait for events.
//!
//! ```console
//! $ cargo run -p zen-async --example on_tokio
//! $ cargo run -p zen-async --example on_tokio -- --threads 2
//! $ cargo run -p zen-client -- check
//! ```

#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;
use tokio::time::{sleep, timeout_at};
use zen_proto::Want;
use zen_proto::server::{self, Accepted, Connection, Options, READ_SIZE, Server, TICK, Waiting, reset};

/// Serves the aphorisms from tasks on tokio.
#[derive(Debug, Parser)]
#[command(version = zen_proto::VERSION)]
struct Arguments {
    /// Number of threads that run tasks
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroUsize,

    #[command(flatten)]
    common: Options,
}

impl server::Arguments for Arguments {
    fn common(&self) -> &Options {
        &self.common
    }
}

fn main() -> ExitCode {
    server::main(|arguments: Arguments| {
        let server = Server::listen(&arguments.common, Waiting::ForReadiness { pollers: 1 }, None)?;
        let mut builder = match arguments.threads.get() {
            1 => runtime::Builder::new_current_thread(),
            _ => runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.worker_threads(arguments.threads.get()).enable_all().build()?;
        Ok(runtime.block_on(accept_all(server))?)
    })
}

/// Accepts clients and spawns a task for each, until no more are accepted and the last is closed.
async fn accept_all(server: &'static Server) -> io::Result<()> {
    let (stop, stop_receiver) = watch::channel(false);
    server.stop.on_request(move || _ = stop.send(true));
    #[expect(deprecated, reason = "the new form is unsafe; an Arc<OwnedFd> stays open for as long as it is registered")]
    let register = |listener| AsyncFd::with_interest(listener, Interest::READABLE);
    let listener = server.listener().map(register).transpose()?;
    let mut tasks = JoinSet::new();
    loop {
        match (server.try_accept(), &listener) {
            (Accepted::Client(stream, connection), _) => {
                tasks.spawn(serve(server, stream, connection, stop_receiver.clone()));
            }
            (Accepted::Next, _) => {}
            (Accepted::WouldBlock, Some(listener)) => {
                while tasks.try_join_next().is_some() {} // otherwise the set would keep finished tasks
                tokio::select! {
                    // tokio keeps the readiness until it is cleared, even if accept() has emptied the backlog.
                    ready = listener.readable() => ready?.clear_ready(),
                    () = sleep(TICK) => {} // while draining, accept() must be tried once a tick
                }
            }
            (Accepted::Later(pause), _) => sleep(pause).await,
            (Accepted::WouldBlock | Accepted::Closed, _) => break,
        }
        consume_budget().await; // many new clients must not keep the existing ones waiting
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn serve(
    server: &'static Server,
    stream: std::net::TcpStream,
    mut connection: Connection,
    stop_receiver: watch::Receiver<bool>,
) {
    let result = match TcpStream::from_std(stream) {
        Ok(stream) => converse(server, stream, &mut connection, stop_receiver).await,
        Err(error) => Err(error),
    };
    connection.close(result);
}

/// Does what the conversation wants, until it wants to close.
async fn converse(
    server: &'static Server,
    mut stream: TcpStream,
    connection: &mut Connection,
    mut stop_receiver: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = [0; READ_SIZE]; // part of the task, also while the client is idle
    let mut has_room = true;
    loop {
        let now = Instant::now();
        match connection.next(now) {
            Want::Read => {
                // The task is suspended here while the client is silent.
                let result = tokio::select! {
                    biased;
                    result = until_deadline(connection.deadline(), stream.read(&mut buffer)) => result,
                    Ok(()) = stop_receiver.changed() => continue, // `next` then begins to drain
                };
                let now = Instant::now();
                match result {
                    Ok(0) => connection.received_eof(),
                    Ok(n) => {
                        let mut input = &buffer[..n];
                        while let Some(question) = connection.next_question(&mut input, now) {
                            let answer = server.answer(question); // the thread runs no other task meanwhile
                            connection.answer(answer);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => connection.read_blocked(now),
                    Err(error) => return Err(error),
                }
            }
            Want::Write => {
                let result = if has_room {
                    stream.try_write(connection.outgoing())
                } else {
                    // The task is suspended here while the client does not read.
                    until_deadline(connection.deadline(), stream.write(connection.outgoing())).await
                };
                has_room = result.is_ok();
                match result {
                    Ok(n) => connection.sent(n, Instant::now()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => connection.write_blocked(Instant::now()),
                    Err(error) => return Err(error),
                }
            }
            Want::EndSending => {
                stream.shutdown().await?;
                connection.ended_sending(now);
            }
            Want::Close => return Ok(()),
            Want::Reset => {
                reset(&stream);
                return Ok(());
            }
        }
    }
}

/// Waits for a read or write until `deadline`, and returns `WouldBlock` after that.
async fn until_deadline(deadline: Option<Instant>, call: impl Future<Output = io::Result<usize>>) -> io::Result<usize> {
    match deadline {
        // `timeout_at` polls the call before it checks the clock, so the call is tried even after the deadline.
        Some(deadline) => timeout_at(deadline.into(), call).await.unwrap_or(Err(ErrorKind::WouldBlock.into())),
        None => call.await,
    }
}

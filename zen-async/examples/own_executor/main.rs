//! Tasks without a runtime: an executor and a reactor, written on `polling` and `std::task::Wake`.
//!
//! This example is the step between callbacks and a runtime. The loop of `zen-poll` learns which client is ready, and
//! asks the client's conversation what to do next. Here an event wakes a *task*, which continues at the `.await` where
//! it stopped.
//!
//! - *What is a waker?* A pointer to a task. Calling it puts the task on the executor's list (`Wake` in `executor.rs`).
//! - *What calls it?* The reactor, when the task's socket is ready or its timer has expired (`Reactor::wait`). A waker
//!   may be called from any thread: the thread that handles signals calls the waker of `sweep` (see below).
//! - *Where does the thread sleep?* Only in `Poller::wait`, and only while no task is woken (`Executor::run`). With
//!   `--delay` it also sleeps in each answer, and then no task runs.
//!
//! No deadline needs a timer of its own: the task `sweep` checks all deadlines once a tick.
//!
//! ```console
//! $ cargo run -p zen-async --example own_executor
//! $ cargo run -p zen-client -- check
//! ```

mod executor;
mod reactor;

use std::future::poll_fn;
use std::io::{ErrorKind, Result};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::task::Poll;
use std::time::Instant;

use zen_proto::Want;
use zen_proto::server::{
    self, Accepted, Connection, Options, READ_SIZE, Server, TICK, Waiting, reset, try_read, try_write,
};

use executor::Executor;
use reactor::Socket;

fn main() -> ExitCode {
    server::main(|options: Options| {
        let server = Server::listen(&options, Waiting::ForReadiness { pollers: 1 }, None)?;
        let executor: &'static Executor = Box::leak(Box::new(Executor::new()?));
        executor.spawn(accept_all(server, executor));
        executor.spawn(sweep(server, executor));
        Ok(executor.run()?)
    })
}

/// Accepts clients and spawns a task for each.
async fn accept_all(server: &'static Server, executor: &'static Executor) {
    for attempt in 1_usize.. {
        match server.try_accept() {
            Accepted::Client(stream, mut connection) => executor.spawn(async move {
                let result = converse(server, executor, stream, &mut connection).await;
                connection.close(result);
            }),
            Accepted::Next => {}
            Accepted::WouldBlock => {
                // The listener is registered only while this task waits. Otherwise every wait would report it again.
                let socket = server.listener().map(|listener| Socket::new(&executor.reactor, listener));
                match socket.transpose() {
                    Ok(Some(mut socket)) => _ = socket.ready(false, None).await,
                    Ok(None) => {}
                    Err(_) => executor.reactor.sleep(TICK).await, // the kernel cannot watch another descriptor now
                }
            }
            Accepted::Later(pause) => executor.reactor.sleep(pause).await,
            Accepted::Closed => return,
        }
        if attempt % ACCEPTS_PER_TURN == 0 {
            executor.reactor.sleep(std::time::Duration::ZERO).await; // the existing clients are served in between
        }
    }
}

/// Does what the conversation wants, until it wants to close. Between two `.await`s no other task runs.
async fn converse(
    server: &'static Server,
    executor: &'static Executor,
    stream: TcpStream,
    connection: &mut Connection,
) -> Result<()> {
    let mut socket = Socket::new(&executor.reactor, stream)?;
    let mut has_room = true;
    loop {
        let mut now = Instant::now();
        let wants = connection.next(now);
        let must_wait = wants == Want::Read || wants == Want::Write && !has_room;
        if must_wait && !connection.is_expired(now) {
            socket.ready(wants == Want::Write, connection.deadline()).await?; // the task is suspended here
            now = Instant::now();
        }
        match wants {
            Want::Read => {
                let mut buffer = [0; READ_SIZE]; // dropped before the next `.await`, so an idle client has none
                match try_read(&socket.source, &mut buffer) {
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
            Want::Write => match try_write(&socket.source, connection.outgoing()) {
                Ok(n) => {
                    has_room = n == connection.outgoing().len();
                    connection.sent(n, now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    has_room = false;
                    connection.write_blocked(now);
                }
                Err(error) => return Err(error),
            },
            Want::EndSending => {
                socket.source.shutdown(Shutdown::Write)?;
                connection.ended_sending(now);
            }
            Want::Close => return Ok(()),
            Want::Reset => {
                reset(&socket.source);
                return Ok(());
            }
        }
    }
}

/// Wakes the tasks whose deadline has passed, once a tick. While the server drains, it wakes all tasks, and more often.
async fn sweep(server: &'static Server, executor: &'static Executor) {
    let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
    server.stop.on_request(move || waker.wake_by_ref()); // called by the thread that handles signals
    // When one task is left, it is this one.
    while executor.unfinished() > 1 {
        let is_draining = server.stop.is_requested();
        executor.reactor.wake_expired((!is_draining).then(Instant::now));
        executor.reactor.sleep(if is_draining { TICK / 10 } else { TICK }).await;
    }
}

/// The number of calls of accept() after which the existing clients are served.
const ACCEPTS_PER_TURN: usize = 64;

//! A pool: one acceptor, a bounded queue, and a few workers that take clients from it.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use zen_proto::server::{Connection, Server, TICK, heartbeat};

use crate::converse::serve_client;

/// Serves from `workers` threads until no more clients are accepted and the last is closed.
///
/// 1. The main thread sleeps in accept(), which rejects a client over the connection limit. This limit is the number of
///    workers plus the length of the queue, or `--max-connections` if it is given and less.
/// 2. An accepted client goes to the end of the queue, and one sleeping worker is woken.
/// 3. A worker takes the first client of the queue and serves it until its conversation is over. The client's
///    deadlines begin here.
/// 4. When no more clients are accepted, the workers empty the queue and end.
pub(crate) fn serve(server: &'static Server, workers: usize) -> Result<()> {
    let queue = Queue::default();
    thread::scope(|scope| {
        let _guard = CloseOnDrop(&queue);
        for number in 1..=workers {
            let worker = || {
                while let Some((stream, mut connection)) = queue.take() {
                    connection.begin();
                    serve_client(&stream, connection);
                }
            };
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn_scoped(scope, worker)
                .context("cannot start all workers: lower --workers")?;
        }
        while let Some(client) = server.accept() {
            queue.put(client);
        }
        Ok(())
    })
}

/// The accepted clients that wait for a worker. `put` needs no bound of its own, because the connection limit bounds
/// the clients with and without a worker together.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    clients: VecDeque<(TcpStream, Connection)>,
    /// Whether the acceptor has ended. Clients that are still queued are served, and none are added.
    is_closed: bool,
}

impl Queue {
    fn put(&self, client: (TcpStream, Connection)) {
        self.state().clients.push_back(client);
        self.changed.notify_one();
    }

    /// Returns the first client, and sleeps while there is none. Returns `None` when no more clients are accepted.
    fn take(&self) -> Option<(TcpStream, Connection)> {
        let mut state = self.state();
        loop {
            if let Some(client) = state.clients.pop_front() {
                return Some(client);
            }
            if state.is_closed {
                return None;
            }
            // A worker without a client is not stuck. It wakes up every tick to record its heartbeat.
            heartbeat(Instant::now());
            (state, _) = self.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guard that closes the queue when it is dropped, also after an error. Otherwise the workers would never end, and
/// the scope would wait for them forever.
struct CloseOnDrop<'a>(&'a Queue);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.changed.notify_all();
    }
}

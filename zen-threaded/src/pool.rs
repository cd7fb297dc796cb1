//! A pool: one acceptor, a bounded queue, and a few workers that take clients from it.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use zen_proto::server::{Connection, Server, TICK, heartbeat};

use crate::converse::converse;

/// Serves from `workers` threads until there are no more clients.
///
/// 1. The main thread sleeps in accept(), which rejects a client when all workers are busy and the queue is full. The
///    connection limit is the number of workers plus the length of the queue.
/// 2. Every other client goes to the end of the queue, which wakes one worker.
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
                    converse(&stream, connection);
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

/// The accepted clients that wait for a worker. The connection limit also limits their number.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    clients: VecDeque<(TcpStream, Connection)>,
    /// Whether no more clients are accepted.
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
            // A worker without a client is not stuck, and its heartbeat shows this every tick.
            heartbeat(Instant::now());
            (state, _) = self.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the queue when it is dropped, also after an error. Otherwise the workers would never end, and the scope would
/// wait for them.
struct CloseOnDrop<'a>(&'a Queue);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.changed.notify_all();
    }
}

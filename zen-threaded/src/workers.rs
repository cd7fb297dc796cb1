//! A few threads that call accept() on one listener.

use std::thread;

use anyhow::{Context, Result};
use zen_proto::server::Server;

use crate::converse::serve_client;

/// Serves from `workers` threads until no more clients are accepted and the last is closed.
///
/// 1. Every worker sleeps in accept() on the same listener. For each client the kernel wakes the worker
///    that has slept longest. There is no thundering herd.
/// 2. The worker serves that client until its conversation is over. While all workers are busy, further
///    clients wait in the backlog and receive nothing.
pub(crate) fn serve(server: &'static Server, workers: usize) -> Result<()> {
    thread::scope(|scope| {
        for number in 1..=workers {
            let worker = || {
                while let Some((stream, connection)) = server.accept() {
                    serve_client(&stream, connection);
                }
            };
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn_scoped(scope, worker)
                .inspect_err(|_| server.stop.request()) // ends the started workers, for which the scope waits
                .context("cannot start all workers: lower --workers")?;
        }
        Ok(())
    })
}

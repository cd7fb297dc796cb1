//! A process for each client, as in early Unix servers. Those called fork(); this server starts its own program again.

use std::thread;

use anyhow::{Context, Result};
use zen_proto::server::{Children, Inetd, Options, Server};

use crate::converse::serve_client;

/// Serves until no more clients are accepted and the last child has ended.
///
/// 1. The main thread sleeps in accept(), which rejects clients over `--max-connections`.
/// 2. For each client it starts this program again, with `--inetd nowait` and the client as stdin, and closes its own
///    copy of the socket.
/// 3. The child serves this one client, and ends. If it crashes, other clients are not affected.
/// 4. The reaper sleeps until a child reports its counters or SIGCHLD arrives, and calls waitpid() for every child that
///    has ended. Before that call the child is a zombie, and its client counts against `--max-connections`.
/// 5. When no more clients are accepted, the reaper waits for the last child.
pub(crate) fn serve(server: &'static Server, options: &Options) -> Result<()> {
    if options.inetd == Some(Inetd::Nowait) {
        serve_the_client(server);
        return Ok(());
    }
    let (children, mut reaper) = Children::new(server, options, &["--mode", "per-process"])?;
    thread::scope(|scope| {
        thread::Builder::new()
            .name("reaper".into())
            .spawn_scoped(scope, move || while reaper.reap() {})
            .context("cannot start the reaper: raise the limit of threads")?;
        while let Some((stream, connection)) = server.accept() {
            children.start(&stream, connection);
        }
        drop(children); // otherwise the reaper would wait for further children
        Ok(())
    })
}

/// Serves the client on stdin: in a child, or in a process that inetd has started for it.
fn serve_the_client(server: &'static Server) {
    // accept() returns the client on stdin, and then `None`.
    while let Some((stream, connection)) = server.accept() {
        serve_client(&stream, connection);
    }
}

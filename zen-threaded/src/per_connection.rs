//! A thread for each connection.

use std::sync::Arc;
use std::thread;

use zen_proto::server::Server;

use crate::converse::converse;

/// Serves until there are no more clients.
///
/// 1. The main thread sleeps in accept(), which turns clients over --max-connections away: the bound
///    without which this architecture could be brought down by silence alone.
/// 2. Each client gets a thread of its own, with a small stack.
/// 3. When no thread can be had, the client is turned away and the others are served on.
/// 4. The scope waits for the last thread.
pub(crate) fn serve(server: &'static Server) {
    thread::scope(|scope| {
        while let Some((stream, client)) = server.accept() {
            // A failed start drops what was to run; the client is needed once more then.
            let guest = Arc::new((stream, client));
            let own = Arc::clone(&guest);
            let thread = thread::Builder::new().name("client".into()).stack_size(STACK);
            if thread.spawn_scoped(scope, move || converse(&own.0, &own.1, server)).is_err() {
                guest.1.turn_away(&guest.0);
            }
        }
    });
}

/// Enough for one chunk and a line of the log; the default of 2 MiB is address space for nothing.
const STACK: usize = 128 * 1024;

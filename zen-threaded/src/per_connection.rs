//! One thread for each connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use zen_proto::server::Server;

use crate::converse::converse;

/// Serves until no more clients are accepted and the last is closed.
///
/// 1. The main thread sleeps in accept(2), called by [`Server::accept`], which rejects clients over
///    `--max-connections`. Without this limit, silent clients alone could exhaust the machine.
/// 2. Each client gets a thread of its own, with a small stack.
/// 3. When no thread can be started, the client is rejected and the others are still served.
/// 4. The scope waits for the last thread.
pub(crate) fn serve(server: &'static Server) {
    thread::scope(|scope| {
        while let Some(client) = server.accept() {
            // If spawn fails, it drops the closure and what was moved into it. So both threads have the slot with the
            // client: if no thread was started, this one takes the client out and rejects it.
            let client = Arc::new(Mutex::new(Some(client)));
            let take = |client: &Mutex<Option<_>>| client.lock().unwrap_or_else(PoisonError::into_inner).take();
            let own = Arc::clone(&client);
            let run = move || {
                if let Some((stream, connection)) = take(&own) {
                    converse(&stream, connection);
                }
            };
            let thread = thread::Builder::new().name("client".into()).stack_size(STACK);
            if thread.spawn_scoped(scope, run).is_err() {
                if let Some((stream, connection)) = take(&client) {
                    connection.reject(&stream);
                }
            }
        }
    });
}

/// The size of a stack in bytes, enough for the read buffer, a log line and the built-in answers. An answer function
/// of your own also runs on it, and may need more.
const STACK: usize = 128 * 1024;

//! One thread for each connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use zen_proto::server::Server;

use crate::converse::serve_client;

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
            // If spawn fails, it drops the closure and what was moved into it. So the closure gets only a reference to
            // a slot that holds the client. The new thread takes the client out of the slot. If there is no new
            // thread, this one takes it out and rejects it.
            let slot = Arc::new(Mutex::new(Some(client)));
            let take = |slot: &Mutex<Option<_>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            let shared_slot = Arc::clone(&slot);
            let run = move || {
                if let Some((stream, connection)) = take(&shared_slot) {
                    serve_client(&stream, connection);
                }
            };
            let thread = thread::Builder::new().name("client".into()).stack_size(STACK);
            if thread.spawn_scoped(scope, run).is_err() {
                if let Some((stream, connection)) = take(&slot) {
                    connection.reject(&stream);
                }
            }
        }
    });
}

/// The size of a stack in bytes, enough for the read buffer, a log line and the built-in answers. An answer function
/// of your own also runs on it, and may need more.
const STACK: usize = 128 * 1024;

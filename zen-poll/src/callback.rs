//! The callback style: the loop calls a method when something has happened to a client.
//!
//! It is asyncio's `Protocol`, with the conversation instead of the transport.

use std::io;
use std::time::Instant;

use zen_proto::server::Connection;

use crate::event_loop::Protocol;

/// A client served by callbacks.
pub(crate) struct Callback {
    connection: Connection,
}

impl Protocol for Callback {
    fn connection_made(connection: Connection) -> Self {
        Self { connection }
    }

    fn data_received(&mut self, mut data: &[u8], now: Instant) {
        let server = self.connection.server();
        while let Some(question) = self.connection.next_question(&mut data, now) {
            let answer = server.answer(question); // a slow answer is worked out here; all clients of this loop wait
            self.connection.answer(answer);
        }
    }

    fn connection_lost(self, result: io::Result<()>) {
        self.connection.close(result);
    }

    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

//! The callback style: the loop calls a method when something has happened to a client.
//!
//! The methods are those of asyncio's `Protocol`. asyncio gives a protocol a transport to write to; here it has a
//! [`Connection`], which collects the answers.

use std::io;
use std::time::Instant;

use zen_proto::server::Connection;

use crate::event_loop::Protocol;

/// The protocol of one client, in the callback style.
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
            let answer = server.answer(question); // all clients of this loop wait for a slow answer
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

//! The terminator style: pieces of a question are collected until its end is found.
//!
//! The methods are those of asynchat: `collect_incoming_data` and `found_terminator`.

use std::io;
use std::mem;
use std::time::Instant;

use zen_proto::Frame;
use zen_proto::server::Connection;

use crate::event_loop::Protocol;

/// The protocol of one client, in the terminator style.
pub(crate) struct Chat {
    connection: Connection,
    /// The pieces of the question that has not ended yet.
    question: Vec<u8>,
}

impl Chat {
    fn collect_incoming_data(&mut self, data: &[u8]) {
        self.question.extend_from_slice(data);
    }

    fn found_terminator(&mut self) {
        let question = mem::take(&mut self.question);
        let answer = self.connection.server().answer(&question); // all clients of this loop wait for a slow answer
        self.connection.answer(answer);
    }
}

impl Protocol for Chat {
    fn connection_made(connection: Connection) -> Self {
        Self { connection, question: Vec::new() }
    }

    fn data_received(&mut self, mut data: &[u8], now: Instant) {
        while let Some(frame) = self.connection.next_frame(&mut data, now) {
            match frame {
                Frame::Data(data) => self.collect_incoming_data(data),
                Frame::Last(data) => {
                    self.collect_incoming_data(data);
                    self.found_terminator();
                }
            }
        }
    }

    fn connection_lost(self, result: io::Result<()>) {
        self.connection.close(result);
    }

    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

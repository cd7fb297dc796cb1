//! The terminator style: pieces of a question are collected until its end is found. (asynchat's
//! `collect_incoming_data` and `found_terminator`.)

use std::io;
use std::time::Instant;

use zen_proto::server::{Client, Server};
use zen_proto::{Conversation, Frame, Framing};

use crate::event_loop::Protocol;

/// A client, served by pieces and ends.
pub(crate) struct Chat {
    server: &'static Server,
    client: Client,
    framing: Framing,
    conversation: Conversation,
}

impl Chat {
    fn collect_incoming_data(&mut self, data: &[u8], now: Instant) {
        self.conversation.collected(data, now);
    }

    fn found_terminator(&mut self) {
        self.conversation.found_terminator(&mut |question| self.server.sage.answer(question));
    }
}

impl Protocol for Chat {
    fn connection_made(server: &'static Server, client: Client) -> Self {
        Self { server, client, framing: Framing::default(), conversation: server.conversation() }
    }

    fn data_received(&mut self, data: &[u8], now: Instant) {
        let mut rest = data;
        while self.conversation.takes_questions() {
            match self.framing.next(&mut rest) {
                Some(Frame::Data(data)) => self.collect_incoming_data(data, now),
                Some(Frame::Last(data)) => {
                    self.collect_incoming_data(data, now);
                    self.found_terminator();
                }
                Some(Frame::TooLong) => self.conversation.found_no_terminator(),
                None => break,
            }
        }
        self.conversation.used_up(data.len(), now);
    }

    fn connection_lost(self, result: io::Result<()>) {
        self.client.gone(&self.conversation, result);
    }

    fn conversation(&mut self) -> &mut Conversation {
        &mut self.conversation
    }
}

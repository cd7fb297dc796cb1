//! The callback style: the loop tells what happened, the protocol answers it. (asyncio's `Protocol`, with the
//! conversation in the place of its transport.)

use std::io;
use std::time::Instant;

use zen_proto::Conversation;
use zen_proto::server::{Client, Server};

use crate::event_loop::Protocol;

/// A client, served by callbacks.
pub(crate) struct Callback {
    server: &'static Server,
    client: Client,
    conversation: Conversation,
}

impl Protocol for Callback {
    fn connection_made(server: &'static Server, client: Client) -> Self {
        Self { server, client, conversation: server.conversation() }
    }

    fn data_received(&mut self, data: &[u8], now: Instant) {
        self.conversation.received(data, now, &mut |question| self.server.sage.answer(question));
    }

    fn connection_lost(self, result: io::Result<()>) {
        self.client.gone(&self.conversation, result);
    }

    fn conversation(&mut self) -> &mut Conversation {
        &mut self.conversation
    }
}

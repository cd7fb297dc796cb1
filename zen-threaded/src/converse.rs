//! One thread with one client: the same loop as in zen-single, and like it asleep in recv() or send().

use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use zen_proto::server::{CHUNK, Client, Server, is_tick, receive, reset, send};
use zen_proto::{Conversation, Want};

/// Serves `client` until its conversation is over. While it is silent, this thread serves nobody.
pub(crate) fn converse(stream: &TcpStream, client: &Client, server: &'static Server) {
    let mut conversation = server.conversation();
    let result = drive(stream, &mut conversation, server);
    client.gone(&conversation, result);
}

/// Does what the conversation wants, until it wants no more.
fn drive(stream: &TcpStream, conversation: &mut Conversation, server: &Server) -> io::Result<()> {
    let mut chunk = [0; CHUNK];
    let mut sage = |question: &[u8]| server.sage.answer(question);
    loop {
        let now = Instant::now();
        if server.stop.is_requested() {
            conversation.drain(now);
        }
        match conversation.wants() {
            // recv() sleeps here while the client is silent: a tick at most, and not at all when its time is up.
            Want::Read => match receive(stream, &mut chunk, conversation.is_due(now)) {
                Ok(0) => conversation.received_eof(),
                Ok(n) => conversation.received(&chunk[..n], Instant::now(), &mut sage),
                Err(error) if is_tick(&error) => conversation.timed_out(now),
                Err(error) => return Err(error),
            },
            // send() sleeps here while the client does not read and the kernel's buffers are full.
            Want::Write => match send(stream, conversation.outgoing(), conversation.is_due(now)) {
                Ok(n) => conversation.sent(n, Instant::now()),
                Err(error) if is_tick(&error) => {
                    conversation.sent(0, now);
                    conversation.timed_out(now);
                }
                Err(error) => return Err(error),
            },
            Want::EndSending => {
                stream.shutdown(Shutdown::Write)?;
                conversation.ended_sending(now);
            }
            Want::Close => return Ok(()),
            Want::Reset => {
                reset(stream);
                return Ok(());
            }
        }
    }
}

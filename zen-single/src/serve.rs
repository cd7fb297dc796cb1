//! The simplest server there is: a loop over clients, and in it a loop over what one client wants.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use zen_proto::server::{CHUNK, Server, is_tick, receive, reset, send};
use zen_proto::{Conversation, Want};

/// Serves until there are no more clients.
///
/// 1. accept() sleeps until a client comes. The others wait in the backlog.
/// 2. The client is served until its conversation is over; see [`converse`].
/// 3. Leaving the loop body closes the connection. Only now does the next client get a turn.
pub(crate) fn serve(server: &'static Server) {
    while let Some((stream, client)) = server.accept() {
        let mut conversation = server.conversation();
        let result = converse(&stream, &mut conversation, server);
        client.gone(&conversation, result);
    }
}

/// Does what the conversation wants, until it wants no more.
fn converse(stream: &TcpStream, conversation: &mut Conversation, server: &Server) -> io::Result<()> {
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

//! The loop for one client, in which its thread sleeps in recv() or send(). It is the same loop as in zen-single.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use zen_proto::Want;
use zen_proto::server::{Connection, READ_SIZE, is_tick, read, reset, write};

/// Serves one client until its conversation is over. Until then this thread serves no other client.
pub(crate) fn serve_client(stream: &TcpStream, mut connection: Connection) {
    let result = converse(stream, &mut connection);
    connection.close(result);
}

/// Does what the conversation wants, until it is over.
fn converse(stream: &TcpStream, connection: &mut Connection) -> io::Result<()> {
    let server = connection.server();
    let mut buffer = [0; READ_SIZE];
    loop {
        let now = Instant::now();
        match connection.next(now) {
            // recv() sleeps here while the client is silent, for at most a tick. After the client's deadline it does
            // not sleep: if nothing has arrived, the conversation ends.
            Want::Read => match read(stream, &mut buffer, connection.is_expired(now)) {
                Ok(0) => connection.received_eof(),
                Ok(n) => {
                    let (mut input, now) = (&buffer[..n], Instant::now());
                    while let Some(question) = connection.next_question(&mut input, now) {
                        let answer = server.answer(question); // only this client waits for a slow answer
                        connection.answer(answer);
                    }
                }
                Err(error) if is_tick(&error) => connection.read_blocked(now),
                Err(error) => return Err(error),
            },
            // send() sleeps here while the client does not read and the kernel's buffers are full.
            Want::Write => match write(stream, connection.outgoing(), connection.is_expired(now)) {
                Ok(n) => connection.sent(n, Instant::now()),
                Err(error) if is_tick(&error) => connection.write_blocked(now),
                Err(error) => return Err(error),
            },
            Want::EndSending => {
                stream.shutdown(Shutdown::Write)?;
                connection.ended_sending(now);
            }
            Want::Close => return Ok(()),
            Want::Reset => {
                reset(stream);
                return Ok(());
            }
        }
    }
}

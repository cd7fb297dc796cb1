//! The simplest server: a loop over clients, and for each client a loop over the steps of its conversation ([`Want`]).

use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use zen_proto::Want;
use zen_proto::server::{Connection, READ_SIZE, Server, is_tick, read, reset, write};

/// Serves one client after another, until the server has drained.
///
/// 1. accept() sleeps until a client connects. The others wait in the backlog.
/// 2. The client is served until its conversation is over; see [`converse`].
/// 3. At the end of the loop body the stream is dropped, which closes it. Only then is the next client accepted.
pub(crate) fn serve(server: &'static Server) {
    while let Some((stream, mut connection)) = server.accept() {
        let result = converse(&stream, &mut connection);
        connection.close(result);
    }
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
                        let answer = server.answer(question); // all other clients wait for a slow answer
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

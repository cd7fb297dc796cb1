//! A server of your own: the loop of zen-single, and answers from a dictionary that is loaded at start.
//!
//! ```console
//! $ cargo run -p zen-proto --features server --example dictionary
//! $ printf 'mutex?' | nc -N 127.0.0.1 1060
//! ```

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use zen_proto::server::{self, Connection, Options, READ_SIZE, Server, Waiting, is_tick, read, reset, write};
use zen_proto::{Answer, Excerpt, Want};

fn main() -> ExitCode {
    server::main(|options: Options| {
        let dictionary = load()?;
        let server = Server::listen(&options, Waiting::InCalls, Some(1))?;
        while let Some((stream, mut connection)) = server.accept() {
            let result = converse(&stream, &mut connection, &dictionary);
            connection.close(result);
        }
        Ok(())
    })
}

/// An answer for each question.
type Dictionary = HashMap<&'static str, Answer>;

/// Loads the dictionary. If an entry is not a valid answer, the server does not start.
fn load() -> anyhow::Result<Dictionary> {
    let entries = ENTRIES.lines().filter_map(|line| line.split_once(' '));
    entries.map(|(word, meaning)| Ok((word, Answer::new(meaning).with_context(|| word)?))).collect()
}

/// Does what the conversation wants, until it wants to close.
fn converse(stream: &TcpStream, connection: &mut Connection, dictionary: &Dictionary) -> io::Result<()> {
    let mut buffer = [0; READ_SIZE];
    loop {
        let now = Instant::now();
        match connection.next(now) {
            Want::Read => match read(stream, &mut buffer, connection.is_expired(now)) {
                Ok(0) => connection.received_eof(),
                Ok(n) => {
                    let (mut input, now) = (&buffer[..n], Instant::now());
                    while let Some(question) = connection.next_question(&mut input, now) {
                        let began = Instant::now();
                        let answer = server::catch(|| look_up(dictionary, question)); // all other clients wait
                        log::info!("{} took {:?}", Excerpt(question), began.elapsed());
                        connection.answer(answer);
                    }
                }
                Err(error) if is_tick(&error) => connection.read_blocked(now),
                Err(error) => return Err(error),
            },
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

/// Returns the meaning of a word. A server with a database would query it here.
fn look_up(dictionary: &Dictionary, question: &[u8]) -> Answer {
    // BUG: a client may send any bytes, and this panics unless they are text. Because of `catch`, only that client is
    // disconnected.
    let word = std::str::from_utf8(question).expect("a question is text");
    dictionary.get(word).unwrap_or(&UNKNOWN).clone()
}

static UNKNOWN: Answer = Answer::from_static("not in this dictionary.");

/// A question and its answer in each line.
const ENTRIES: &str = "\
backlog? connections that the kernel has made and no server has accepted.
mutex? a lock that one thread holds at a time.
poll? a call that waits until one of many descriptors is ready.";

//! Faulty example: the answer to an unknown question has no full stop. One thread serves one client at a time.
//!
//! **The fault.** Only the `.` at its end shows that an answer is complete, and the error message has none. The client
//! waits for the rest of the answer while the server waits for the next question. Neither has a timeout, so both wait
//! for ever.
//!
//! **History.** Some published copies of the zen server of *Foundations of Python Network Programming* lack this full
//! stop; the code in the book's repository has it. The mistake is easily missed, because no client in the book asks an
//! unknown question.
//!
//! **See it.** `check` names the rule that is broken:
//!
//! ```console
//! $ cargo run -p zen-single --example no_full_stop
//! $ cargo run -p zen-client -- check unknown-then-known
//! $ cargo xtask lab no-full-stop
//! ```
//!
//! **The fix.** A type that cannot hold such a text: `Answer` in `zen-proto/src/answer.rs`. A constant without its full
//! stop does not compile, and any other text is checked at run time. In addition, `src/serve.rs` disconnects a client
//! that stays silent until its deadline.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use clap::Parser;
use zen_proto::{Frame, Framing, QuestionTooLong, UNKNOWN, answer_to};

/// The arguments `[HOST] [-p PORT]`, which every server has.
#[derive(Parser)]
struct Arguments {
    #[arg(default_value = "127.0.0.1")]
    host: String,
    #[arg(short, long, default_value_t = 1060)]
    port: u16,
}

fn main() -> anyhow::Result<()> {
    let Arguments { host, port } = Arguments::parse();
    let listener = TcpListener::bind((host, port))?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let _ = listener.accept().and_then(|(stream, _)| converse(&stream));
    }
}

fn converse(mut stream: &TcpStream) -> io::Result<()> {
    let (mut framing, mut question, mut chunk) = (Framing::default(), Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return Ok(());
        }
        let (mut bytes, mut answers) = (&chunk[..n], Vec::new());
        while let Some(frame) = framing.next(&mut bytes) {
            match frame {
                Ok(Frame::Data(data)) => question.extend_from_slice(data),
                Ok(Frame::Last(data)) => {
                    question.extend_from_slice(data);
                    answers.extend_from_slice(&answer(&question));
                    question.clear();
                }
                Err(QuestionTooLong) => {
                    answers.extend_from_slice(b"Error: question too long"); // BUG: no `.`
                    return stream.write_all(&answers);
                }
            }
        }
        stream.write_all(&answers)?;
    }
}

/// Returns the answer to `question`. An error message loses its full stop.
fn answer(question: &[u8]) -> Vec<u8> {
    let mut answer = answer_to(question).as_bytes().to_vec();
    if answer == UNKNOWN.as_bytes() {
        answer.pop(); // BUG: the client never sees the end of this answer. Fix: keep the `.`.
    }
    answer
}

//! Faulty example: a task that looks up its answers with a call that blocks.
//!
//! **The fault.** Each answer takes 200 ms in a blocking call: a file, a database, a lock, or here `thread::sleep`.
//! While the thread sleeps in the call, it runs no other task. Four clients that ask at the same time wait 200, 400,
//! 600 and 800 ms. A server for one client at a time would be as fast.
//!
//! **History.** In *Foundations of Python Network Programming*, a `time.sleep` in `get_answer` shows the advantage of
//! threads. In a server with one event loop, the same line shows the weakness of the loop.
//!
//! **See it.**
//!
//! ```console
//! $ cargo run -p zen-async --example blocking_call
//! $ cargo run -p zen-client -- load -c 4
//! $ cargo xtask lab stall
//! ```
//!
//! **The fix.** `answer` in `src/on_smol.rs` shows two fixes. If the wait can be awaited, await it (`--await`).
//! Otherwise make the call in the blocking pool (`--offload`). Run `zen-async --delay 200ms` with each of these flags,
//! and with neither.

#![forbid(unsafe_code)]

use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{Async, LocalExecutor};
use zen_proto::{Answer, Conversation, Timeouts, Want, answer_to};

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
    let listener = Async::new(TcpListener::bind((host, port))?)?;
    println!("listening on {}", listener.get_ref().local_addr()?);
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        loop {
            let (stream, _) = listener.accept().await?;
            executor.spawn(converse(stream)).detach();
        }
    }))
}

async fn converse(mut stream: Async<TcpStream>) -> io::Result<()> {
    let mut conversation = Conversation::new(Timeouts::NEVER, Instant::now());
    let mut chunk = [0; 4096];
    loop {
        match conversation.wants() {
            Want::Read => match stream.read(&mut chunk).await? {
                0 => conversation.received_eof(),
                n => {
                    let (mut input, now) = (&chunk[..n], Instant::now());
                    while let Some(question) = conversation.next_question(&mut input, now) {
                        let answer = look_up(question);
                        conversation.answer(Some(answer));
                    }
                }
            },
            Want::Write => {
                let n = stream.write(conversation.outgoing()).await?;
                conversation.sent(n, Instant::now());
            }
            Want::EndSending | Want::Close | Want::Reset => return Ok(()), // simplified: no lingering close
        }
    }
}

fn look_up(question: &[u8]) -> Answer {
    thread::sleep(Duration::from_millis(200)); // BUG: no .await, so no other task runs
    answer_to(question)
}

//! Faulty example: tasks that yield the thread only when they must wait.
//!
//! **The fault.** `stream.read().await` suspends a task only if there is nothing to read. If a client sends its next
//! questions before it has received its answers, there is always something to read. Its task reads, answers, writes and
//! reads again, and no `.await` ever suspends it. Two such clients occupy the thread. A third client, with one small
//! question, waits until they stop.
//!
//! **History.** The coroutine style in *Foundations of Python Network Programming* looks like code with threads, which
//! is its advantage. But the kernel can interrupt a thread at any time, while a coroutine runs until it yields.
//!
//! **See it.** Each answer takes 100 µs, and each busy client always has 1,000 questions that are not answered yet.
//! The last `zen-client` is the third client, which connects while the other two ask:
//!
//! ```console
//! $ cargo run -p zen-async --example never_yields
//! $ cargo run -p zen-client -- load -c 2 --pipeline 1000
//! $ cargo run -p zen-client -- -n 1
//! $ cargo xtask lab starve
//! ```
//!
//! **The fix.** Yield after each turn, even if there is more to read. `read` in `src/on_smol.rs` yields, or waits for
//! the reactor, before every read.

#![forbid(unsafe_code)]

use std::io;
use std::net::{TcpListener, TcpStream};
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
            // BUG: while there is something to read, this task never yields. Fix: `yield_now().await` before each read.
            Want::Read => match stream.read(&mut chunk).await? {
                0 => conversation.received_eof(),
                n => {
                    let (mut input, now) = (&chunk[..n], Instant::now());
                    while let Some(question) = conversation.next_question(&mut input, now) {
                        let answer = compute(question);
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

/// Returns the answer after 100 µs of computing, like `--burn 100us` of the servers.
fn compute(question: &[u8]) -> Answer {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_micros(100) {
        std::hint::spin_loop();
    }
    answer_to(question)
}

//! Faulty example: a counter that tasks read before an `.await` and write after it.
//!
//! **The fault.** All tasks run in one thread, so it seems that no other task can run between reading the counter and
//! writing it. But during an `.await` the thread runs other tasks. They read the same old number, and all but one of
//! the updates are lost. The clients receive correct answers, but the counter in the log is too low.
//!
//! **History.** "One thread, so no races" is often said of JavaScript, of `asyncio`, and of every event loop. It is
//! true between two awaits. Across an await it is false.
//!
//! **See it.** The log shows the counter of questions. When 8 clients ask at the same time, the counter is too low.
//!
//! ```console
//! $ cargo run -p zen-async --example lost_update
//! $ cargo run -p zen-client -- load -c 8 -d 1s
//! $ cargo xtask lab lost-update
//! ```
//!
//! **The fix.** Read and write without an `.await` in between: `counter.set(counter.get() + 1)` after the await. Or
//! hold an async lock across the await. With several threads, use an atomic `fetch_add`.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Parser;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{Async, LocalExecutor, Timer};
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
    let counter = Rc::new(Cell::new(0));
    smol::block_on(executor.run(async {
        loop {
            let (stream, _) = listener.accept().await?;
            let counter = Rc::clone(&counter);
            executor
                .spawn(async move {
                    let result = converse(stream, &counter).await;
                    eprintln!("questions counted: {}", counter.get());
                    result
                })
                .detach();
        }
    }))
}

async fn converse(mut stream: Async<TcpStream>, counter: &Cell<u64>) -> io::Result<()> {
    let mut conversation = Conversation::new(Timeouts::NEVER, Instant::now());
    let mut chunk = [0; 4096];
    loop {
        match conversation.wants() {
            Want::Read => match stream.read(&mut chunk).await? {
                0 => conversation.received_eof(),
                n => {
                    let (mut input, now) = (&chunk[..n], Instant::now());
                    while let Some(question) = conversation.next_question(&mut input, now) {
                        let answer = look_up(question, counter).await;
                        conversation.answer(Some(answer));
                    }
                }
            },
            Want::Write => {
                let n = stream.write(conversation.outgoing()).await?;
                conversation.sent(n, Instant::now());
            }
            Want::EndSending | Want::Close | Want::Reset => return Ok(()),
        }
    }
}

async fn look_up(question: &[u8], counter: &Cell<u64>) -> Answer {
    let count = counter.get();
    Timer::after(Duration::from_millis(2)).await; // for example a database
    // BUG: other tasks have counted meanwhile. Fix: counter.set(counter.get() + 1).
    counter.set(count + 1);
    answer_to(question)
}

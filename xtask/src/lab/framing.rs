//! Framing: where a question ends, where an answer ends, and how a connection ends.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Experiment;
use super::fixture::{check_both, faulty_example, server};
use super::notes::{Notes, Text};
use crate::harness::client::{APHORISMS, Received};
use crate::harness::{Client, Server, WAIT_LIMIT, wait_for};

pub(super) const ENDS_WITH: Experiment = Experiment {
    name: "ends-with",
    claim: Text(
        "Receiving until the data end with the suffix frames a question.",
        "一直接收到数据以后缀结尾，就得到一个完整的问题。",
    ),
    question: Text(
        "a server reads until the last byte is a `?`. What does it make of two questions in one send, of a \
         question and a newline, and of 8 MB without any `?`?",
        "服务器一直读到最后一个字节是 `?`。一次发来两个问题、问题后带换行、8 MB 里没有 `?`，它各会怎么处理？",
    ),
    run: ends_with,
    why: Text(
        "TCP carries bytes, and the bytes of one recv() may end anywhere in a question. A question ends at its first \
         `?`, wherever that is in the received bytes. The bytes after it belong to the next question. And the server \
         must limit the length of a question.",
        "TCP 传的是字节，一次 recv() 带来的数据可能断在任何地方。问题的结尾是它的第一个 `?`，无论落在哪里；其后的\
         字节属于下一个问题；而且服务器必须计数。",
    ),
    read: &["zen-single/examples/ends_with.rs", "zen-proto/src/framing.rs"],
    is_alone: false,
    is_slow: false,
};

fn ends_with(notes: &mut Notes) -> Result<()> {
    let faulty = faulty_example("ends_with")?;
    notes.doing("two questions in one send");
    let mut client = faulty.client()?;
    client.ask(b"Simple is better than?Beautiful is better than?", b"Error: unknown aphorism.")?;
    client.expect_silence(SHORT)?;
    saw!(notes, "two questions in one send: one answer, an error", "一次发来两个问题：只有一个回答，而且是错误");
    drop(client);
    notes.doing("a newline");
    let mut client = faulty.client()?;
    client.send(b"Simple is better than?\n")?;
    client.expect_silence(SHORT)?;
    saw!(notes, "a newline after the question: no answer at all", "问题后带换行：根本没有回答");
    drop(client);
    notes.doing("8 MB without an end");
    let before = faulty.usage().memory;
    let mut client = faulty.client()?;
    client.send(&vec![b'x'; 8 << 20])?;
    let grown = wait_for(WAIT_LIMIT, || {
        let memory = faulty.usage().memory.saturating_sub(before);
        (memory > 6 << 20).then_some(memory)
    });
    let grown = grown.context("the faulty example does not keep 8 MB without a `?`")?;
    saw!(notes, "8 MB without a `?`: {mb} MB more memory", "8 MB 里没有 `?`：内存增加 {mb} MB", mb = grown >> 20);
    drop(client);
    notes.doing("the fix");
    let fixed = server("single", &[])?;
    let mut client = fixed.client()?;
    client.ask(b"Simple is better than?Beautiful is better than?", b"complex.ugly.")?;
    client.ask(b"Simple is better than?\n", b"complex.")?;
    client.ask(&[b'x'; 257], b"Error: question too long.")?;
    saw!(
        notes,
        "zen-single: two answers; the newline is skipped; a question of 257 bytes is too long",
        "zen-single：两个回答；换行被跳过；第 257 个字节算过长"
    );
    drop(client);
    for (case, rule) in [("two-in-one-segment", 2), ("white-space-before", 3), ("257-without-mark", 5)] {
        // The faulty example serves one client at a time, so each check ends before the next one connects.
        notes.saw(check_both(&faulty, &fixed, case, rule)?);
    }
    Ok(())
}

pub(super) const NO_FULL_STOP: Experiment = Experiment {
    name: "no-full-stop",
    claim: Text("An error answer is an answer, with or without its full stop.", "错误回答也是回答，有没有句号都一样。"),
    question: Text(
        "a client asks an unknown question, and reads until the full stop. The server sends the error without \
         one. Which side ends the wait?",
        "客户端问了一个未知的问题，一直读到句号为止。服务器发来的错误没有句号。哪一方会结束？",
    ),
    run: no_full_stop,
    why: Text(
        "neither: the client waits for the rest of the answer, the server for the next question. Each \
         follows the protocol as far as it can see. Every answer needs its end mark, errors above all.",
        "谁也不会：客户端等回答的剩余部分，服务器等下一个问题。就各自所知，都没有错。结尾标记必须对每个回答都成立\
         ，首先就是错误。",
    ),
    read: &["zen-single/examples/no_full_stop.rs", "zen-proto/src/aphorisms.rs"],
    is_alone: false,
    is_slow: false,
};

fn no_full_stop(notes: &mut Notes) -> Result<()> {
    let faulty = faulty_example("no_full_stop")?;
    let mut client = faulty.client()?;
    client.ask(APHORISMS[0].0, APHORISMS[0].1)?;
    client.ask(b"Complicated is better than?", b"Error: unknown aphorism")?;
    notes.doing("both wait");
    client.expect_silence(SHORT * 2)?;
    faulty.wait_until_asleep(WAIT_LIMIT)?;
    saw!(notes, "the error comes without its end: the client waits for more", "错误没有结尾：客户端还在等");
    saw!(notes, "the server sleeps in recv(): it waits for the client", "服务器睡在 recv() 里：它在等客户端");
    drop(client);
    let fixed = server("single", &["--question-timeout", "300ms", "--idle-timeout", "300ms"])?;
    let mut client = fixed.client()?;
    client.ask(b"Complicated is better than?", b"Error: unknown aphorism.")?;
    client.expect_end().context("a silent client is not disconnected")?;
    saw!(
        notes,
        "zen-single: the error has its full stop, and a client that says nothing more is disconnected after a while",
        "zen-single：错误带句号；此后一言不发的客户端过一会儿就被断开"
    );
    notes.saw(check_both(&faulty, &server("single", &[])?, "unknown-then-known", 4)?);
    Ok(())
}

pub(super) const LOST_ANSWER: Experiment = Experiment {
    name: "lost-answer",
    claim: Text("What has been sent before close() is delivered.", "close() 之前发送的数据都会送达。"),
    question: Text(
        "a client asks 4,000 questions, then one that is too long, and keeps sending. The server sends 96,025 \
         bytes of answers and closes. How many arrive?",
        "客户端问了 4,000 个问题，再来一个过长的，还继续发。服务器发出 96,025 字节的回答然后关闭。有多少到达？",
    ),
    run: lost_answer,
    why: Text(
        "send() hands bytes to the kernel. If bytes of the client are still unread at close(), the kernel resets \
         the connection, and discards what it has not yet delivered. So: end the sending side, read and discard the \
         rest, then close.",
        "send() 只是把字节交给内核。如果 close() 时还有客户端的字节没读，内核就复位连接，并丢掉还没送出的数据。所\
         以：先结束发送方向，把剩下的读完丢弃，再关闭。",
    ),
    read: &["zen-single/examples/hasty_close.rs", "zen-single/src/serve.rs", "zen-proto/src/conversation.rs"],
    is_alone: false,
    is_slow: false,
};

fn lost_answer(notes: &mut Notes) -> Result<()> {
    const QUESTIONS: usize = 4_000;
    const TOTAL: usize = QUESTIONS * "Error: unknown aphorism.".len() + "Error: question too long.".len();
    let received = |server: &Server| -> Result<(usize, Received)> {
        // A small window, so that most of the answers are still with the server's kernel.
        let mut client = Client::connect_with_buffer(server.address(), 4096)?;
        client.send(&[&[b'?'; QUESTIONS][..], &[b'x'; 400]].concat())?;
        // It may be reset by now.
        let _ = client.send(&[b'y'; 50_000]);
        thread::sleep(SHORT);
        let mut count = 0;
        loop {
            match client.read_some()? {
                Received::Bytes(bytes) => count += bytes.len(),
                end => return Ok((count, end)),
            }
        }
    };
    let faulty = faulty_example("hasty_close")?;
    notes.doing("hasty close");
    let (arrived, end) = received(&faulty)?;
    saw!(
        notes,
        "hasty_close: {arrived} of {TOTAL} bytes arrive, then {end}",
        "hasty_close：{TOTAL} 字节中到达 {arrived}，然后是 {end}",
        end = named(&end, notes),
    );
    let fixed = server("single", &[])?;
    notes.doing("lingering close");
    let (all, end_of_fixed) = received(&fixed)?;
    saw!(
        notes,
        "zen-single: {all} of {TOTAL} bytes arrive, then {end}",
        "zen-single：{TOTAL} 字节中到达 {all}，然后是 {end}",
        end = named(&end_of_fixed, notes),
    );
    ensure!(arrived < TOTAL / 2 && end == Received::Reset, "expected a reset after few of the bytes");
    ensure!(all == TOTAL && end_of_fixed == Received::End, "expected all bytes and then the end of file");
    notes.saw(check_both(&faulty, &fixed, "too-long-keeps-coming", 8)?);
    Ok(())
}

fn named(end: &Received, notes: &Notes) -> &'static str {
    let text = match end {
        Received::End => Text("end of file", "文件结尾"),
        Received::Reset => Text("a reset", "复位"),
        Received::Bytes(_) | Received::Nothing => Text("nothing", "再无动静"),
    };
    text.in_(notes.language())
}

/// The time after which nothing more is expected.
const SHORT: Duration = Duration::from_millis(150);

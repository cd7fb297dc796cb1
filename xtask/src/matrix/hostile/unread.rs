//! Clients that ask and do not read, or read slowly.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::{Clock, Repeated, TOLERANCE, everywhere, expect_idle, retry_if_late, with_honest_client};
use crate::harness::client::{APHORISMS, Client};
use crate::harness::{WAIT_LIMIT, queue};
use crate::matrix::{Case, Ctx, case};

pub(crate) const CASES: &[Case] = &[
    everywhere(case("never_reading", never_reading).arguments(SLOW_ARGUMENTS)),
    everywhere(case("never_reading_nor_asking_on", never_reading_nor_asking_on).arguments(SLOW_ARGUMENTS)),
    case("many_never_reading", many_never_reading).arguments(SLOW_ARGUMENTS),
    everywhere(case("reading_in_time", reading_in_time).arguments(SLOW_ARGUMENTS)),
    everywhere(case("slow_reading_to_the_end", slow_reading_to_the_end).arguments(SLOW_ARGUMENTS)),
];

/// Pending answers stop growing at a bound, waiting costs no processor time, and the client is reset at the question
/// timeout.
fn never_reading(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 1, SLOW, || {
        retry_if_late(|clock| {
            let mut client = NeverReader::connect(ctx, APHORISMS[2].0)?;
            let mut was_observed = false;
            // It asks as fast as it can, so that the server always has a next question.
            while client.is_there(usize::MAX)? {
                if client.is_stuck() && !was_observed {
                    expect_idle(ctx).context("with a client that does not read")?;
                    // If its time was over meanwhile, the server was not observed with the client connected.
                    was_observed = client.grew_before.elapsed() < SLOW;
                }
                sleep(GLANCE);
            }
            nothing_is_kept(&[client])?;
            clock.was_late = !was_observed;
            ensure!(was_observed, "it was reset before the server had been observed");
            Ok(())
        })
    })
}

/// The server can read all questions, but the answers exceed what the kernel buffers. The server must end the
/// connection with a reset: after a normal close, the kernel would try for minutes to deliver the rest.
fn never_reading_nor_asking_on(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 1, SLOW, || {
        let mut client = NeverReader::connect(ctx, b"?")?;
        client.client.send(&[b'?'; 2 * CHUNK])?;
        while !client.was_reset()? {
            client.check_queue()?;
            sleep(GLANCE);
        }
        nothing_is_kept(&[client])
    })
}

/// A hundred clients that never read cost at most [`MEMORY`], and [`PROCESS`] each where every client has a process.
/// Where clients wait, there are twice as many clients as are served at the same time.
fn many_never_reading(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.usage().memory;
    let count = ctx.entry.at_once.map_or(CROWD, |at_once| at_once * 2);
    with_honest_client(ctx, 2, SLOW, || {
        // A bare question mark has the longest answer for its length.
        let question = |n| if n % 10 == 0 { &b"?"[..] } else { APHORISMS[2].0 };
        let mut clients = (0..count).map(|n| NeverReader::connect(ctx, question(n))).collect::<Result<Vec<_>>>()?;
        let (mut most, mut gone) = (0, Vec::new());
        while !clients.is_empty() {
            let mut staying = Vec::new();
            for mut client in clients {
                if client.is_there(1)? { staying.push(client) } else { gone.push(client) }
            }
            clients = staying;
            most = most.max(ctx.server.usage().memory);
            sleep(GLANCE);
        }
        let processes = if ctx.entry.forks { PROCESS * count as u64 } else { 0 };
        ensure!(most <= before + MEMORY + processes, "the server's memory grew from {before} to {most} bytes");
        nothing_is_kept(&gone)
    })
}

/// A client that begins to read in time receives every answer.
fn reading_in_time(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 2, SLOW, || {
        retry_if_late(|clock| {
            let start = Instant::now();
            let mut client = NeverReader::connect(ctx, APHORISMS[2].0)?;
            let rest = ask_in_background(&client.client, ASKED)?;
            sleep(SLOW / 2);
            client.check_queue()?;
            clock.took(start.elapsed(), SLOW);
            clock.was_late |= client.held == 0;
            ensure!(client.held > 0, "the server has not begun to answer");
            gets_everything(&mut client.client, ASKED, Duration::ZERO, clock)?;
            rest.join().map_err(|_| anyhow!("the writer panicked"))?
        })
    })
}

/// A client asks ten thousand questions, shuts down its sending side, and reads slowly: 80,000 bytes and end of file.
fn slow_reading_to_the_end(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 4, SLOW, || {
        retry_if_late(|clock| {
            let mut client = ctx.client()?;
            let rest = ask_in_background(&client, 10_000)?;
            gets_everything(&mut client, 10_000, Duration::from_millis(3), clock)?;
            rest.join().map_err(|_| anyhow!("the writer panicked"))?
        })
    })
}

/// Sends this many questions and shuts down the sending side, in a thread of its own.
fn ask_in_background(client: &Client, count: usize) -> Result<JoinHandle<Result<()>>> {
    let mut writing = client.stream().try_clone()?;
    let ask = move || {
        writing.write_all(&APHORISMS[2].0.repeat(count)).context("not all questions were taken")?;
        writing.shutdown(Shutdown::Write).context("cannot end the sending side")
    };
    Ok(thread::Builder::new().name("writer".into()).spawn(ask)?)
}

/// Reads the answers to this many questions, a hundred at a time with a `pause` after them, then end of file.
fn gets_everything(client: &mut Client, count: usize, pause: Duration, clock: &mut Clock) -> Result<()> {
    let answers = APHORISMS[2].1.repeat(100);
    let mut read_at = Instant::now();
    for n in (0..count).step_by(100) {
        let read = client.expect(&answers).with_context(|| format!("after {n} answers"));
        clock.took(read_at.elapsed(), SLOW);
        read?;
        read_at = Instant::now();
        sleep(pause);
    }
    client.expect_end()
}

/// A client with a small buffer that asks without end and reads nothing.
struct NeverReader {
    client: Client,
    /// The server's address and the client's.
    addresses: (SocketAddr, SocketAddr),
    asking: Repeated,
    /// When the server's send queue for it was read last.
    seen_at: Instant,
    held: u32,
    most: u32,
    /// The last growth of that queue was between these two times.
    grew_after: Instant,
    grew_before: Instant,
}

impl NeverReader {
    fn connect(ctx: &Ctx, question: &[u8]) -> Result<NeverReader> {
        let now = Instant::now();
        let server = ctx.server.address();
        let client = Client::connect_with_buffer(server, 4096)?;
        let addresses = (server, client.stream().local_addr()?);
        let asking = Repeated::new(question);
        Ok(NeverReader { client, addresses, asking, seen_at: now, held: 0, most: 0, grew_after: now, grew_before: now })
    }

    /// Checks what the server's kernel holds for it, and asks with at most this many writes. Returns false once it is
    /// reset, which must not be too early.
    fn is_there(&mut self, writes: usize) -> Result<bool> {
        self.check_queue()?;
        for _ in 0..writes {
            match self.asking.push(&mut self.client) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    self.was_reset_in_time()?;
                    return Ok(false);
                }
                Err(error) => return Err(error).context("not a reset"),
            }
        }
        Ok(true)
    }

    fn check_queue(&mut self) -> Result<()> {
        let before = Instant::now();
        let held = queue::unsent(self.addresses.0, self.addresses.1)?;
        if held > self.held {
            (self.grew_after, self.grew_before) = (self.seen_at, Instant::now());
        }
        (self.seen_at, self.held) = (before, held);
        self.most = self.most.max(held);
        ensure!(held <= HELD, "the kernel holds {held} bytes for the client");
        ensure!(self.grew_before.elapsed() <= WAIT_LIMIT, "the client is neither served nor reset");
        Ok(())
    }

    /// Returns whether the server's queue for it is full: not empty, and not grown for a while.
    fn is_stuck(&self) -> bool {
        self.held > 0 && self.grew_before.elapsed() > STUCK
    }

    /// Returns whether a client that asks no more was reset, which must not be too early.
    fn was_reset(&mut self) -> Result<bool> {
        match self.client.stream().take_error()? {
            None => Ok(false),
            Some(error) if error.kind() == ErrorKind::ConnectionReset => self.was_reset_in_time().map(|()| true),
            Some(error) => Err(error).context("not a reset"),
        }
    }

    /// Expects that it was reset one timeout after the network took the last byte.
    fn was_reset_in_time(&self) -> Result<()> {
        let (least, most) = (self.grew_before.elapsed(), self.grew_after.elapsed());
        ensure!(self.most >= 16 * 1024, "the kernel held only {} bytes for it", self.most);
        ensure!(most >= SLOW, "the client was reset after {most:?}, before the timeout of {SLOW:?}");
        ensure!(least <= SLOW + TOLERANCE, "the client was reset only after {least:?}; the timeout is {SLOW:?}");
        Ok(())
    }
}

/// Expects that the kernel keeps nothing for clients that were reset.
fn nothing_is_kept(clients: &[NeverReader]) -> Result<()> {
    for client in clients {
        let kept = queue::unsent(client.addresses.0, client.addresses.1)?;
        ensure!(kept == 0, "the kernel still holds {kept} bytes for a client");
    }
    Ok(())
}

/// The `--question-timeout` of all cases.
const SLOW: Duration = Duration::from_millis(400);
const SLOW_ARGUMENTS: &[&str] = &["--question-timeout", "400ms"];

const CROWD: usize = 100;

/// The bytes that a server reads in one call. If each byte is a `?`, the answers to one chunk fit into the kernel's
/// buffers, and the answers to two chunks do not.
const CHUNK: usize = 4096;

/// Questions whose answers exceed what the kernel holds.
const ASKED: usize = 50_000;

/// The contract: what the kernel may hold of one client's answers.
const HELD: u32 = 256 * 1024;

/// The bytes by which the server's memory may grow while all these clients are connected.
const MEMORY: u64 = 4 << 20;

/// The bytes that a process for one client may use in addition, for stacks and heap.
const PROCESS: u64 = 512 << 10;

/// The pause between two checks of the kernel's queue.
const GLANCE: Duration = Duration::from_millis(10);

/// The time without growth after which the queue counts as full.
const STUCK: Duration = Duration::from_millis(50);

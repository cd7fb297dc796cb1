//! Servers whose behavior is known, in this process and in a child that can be stopped.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use zen_proto::{MAX_QUESTION, answer_to};

/// A server in this process: a thread for each connection, until the process ends.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
}

/// The counts of the fake server.
#[derive(Default)]
struct Seen {
    /// When each question arrived, and over which connection.
    arrivals: Mutex<Vec<(Instant, usize)>>,
    wrong: AtomicU64,
    dropped: AtomicU64,
    shed: AtomicU64,
    /// When the token bucket of `capacity` was empty, from which its next token counts.
    bucket: Mutex<Option<Instant>>,
}

/// The behavior of a fake server.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Behavior {
    /// The time for each answer.
    pub(super) delay: Duration,
    /// Every n-th answer of a connection is wrong; 0: none.
    pub(super) wrong_every: usize,
    /// Every n-th connection is closed immediately; 0: none.
    pub(super) drop_every: usize,
    /// The most questions a second. On a further question the server closes the connection.
    pub(super) capacity: Option<u32>,
}

impl Fake {
    pub(super) fn start(behavior: Behavior) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let address = listener.local_addr()?;
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        let accept = move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (Ok(stream), seen) = (stream, Arc::clone(&shared)) else { continue };
                if behavior.drop_every > 0 && number % behavior.drop_every == behavior.drop_every - 1 {
                    seen.dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                // A connection without a thread is closed, and the check that needed it fails.
                let _ = thread::Builder::new().spawn(move || converse(&stream, number, behavior, &seen));
            }
        };
        thread::Builder::new().name("fake".to_owned()).spawn(accept).context("cannot start a thread")?;
        Ok(Self { address, seen })
    }

    /// Returns when the questions arrived, the earliest first, each with the number of its connection.
    pub(super) fn arrivals(&self) -> Vec<(Instant, usize)> {
        let mut arrivals = self.seen.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        arrivals.sort_unstable();
        arrivals
    }

    pub(super) fn wrong(&self) -> u64 {
        self.seen.wrong.load(Ordering::Relaxed)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.seen.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn shed(&self) -> u64 {
        self.seen.shed.load(Ordering::Relaxed)
    }
}

impl Seen {
    /// Returns whether the server may answer another question: a bucket of tokens, `capacity` a second.
    fn has_capacity(&self, capacity: u32) -> bool {
        let now = Instant::now();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let fullest = now.checked_sub(BURST).unwrap_or(now);
        let next = bucket.map_or(fullest, |empty| empty.max(fullest)) + Duration::from_secs(1) / capacity;
        let has = next <= now;
        if has {
            *bucket = Some(next);
        }
        has
    }
}

fn converse(stream: &TcpStream, number: usize, behavior: Behavior, seen: &Seen) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut question = Vec::new();
    for count in 1.. {
        question.clear();
        (&mut reader).take(MAX_QUESTION as u64).read_until(b'?', &mut question)?;
        if question.is_empty() {
            break;
        }
        seen.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), number));
        if behavior.capacity.is_some_and(|capacity| !seen.has_capacity(capacity)) {
            seen.shed.fetch_add(1, Ordering::Relaxed);
            break;
        }
        if !behavior.delay.is_zero() {
            thread::sleep(behavior.delay);
        }
        if behavior.wrong_every > 0 && count % behavior.wrong_every == 0 {
            seen.wrong.fetch_add(1, Ordering::Relaxed);
            (&*stream).write_all(b"wrong.")?;
        } else {
            (&*stream).write_all(answer_to(&question).as_bytes())?;
        }
    }
    Ok(())
}

/// A server in a process of its own, which is killed and reaped on drop.
pub(super) struct StoppableServer {
    child: Child,
    pub(super) address: SocketAddr,
}

impl StoppableServer {
    /// Starts this program again.
    pub(super) fn start() -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .arg(SERVER_COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a server to freeze")?;
        let stdout = child.stdout.take();
        let mut this = Self { child, address: (Ipv4Addr::LOCALHOST, 0).into() };
        let mut line = String::new();
        BufReader::new(stdout.context("it is piped")?).read_line(&mut line)?;
        this.address = line.trim().parse().context("the server to freeze did not start")?;
        Ok(this)
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).context("cannot stop the server")
    }
}

impl Drop for StoppableServer {
    fn drop(&mut self) {
        // The child is not reaped yet, so the pid is still its own.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves in the child until the parent closes stdin, or dies.
pub(super) fn serve() -> Result<()> {
    // A stopped process reads no end of file.
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot follow the parent")?;
    let fake = Fake::start(Behavior::default())?;
    println!("{}", fake.address);
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// The hidden command that this program starts itself with.
pub(crate) const SERVER_COMMAND: &str = "selftest-server";
/// The time for which unused capacity is kept: longer than a busy machine delays a question.
const BURST: Duration = Duration::from_millis(20);

//! Servers whose behaviour is known, in this process and in a child that can be stopped.

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

/// What the server itself saw and did.
#[derive(Default)]
struct Seen {
    /// When each question came, and over which connection.
    arrivals: Mutex<Vec<(Instant, usize)>>,
    wrong: AtomicU64,
    dropped: AtomicU64,
}

/// How it behaves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manner {
    /// How long it thinks before each answer.
    pub(super) delay: Duration,
    /// Every so many answers of a connection one is wrong; 0: none.
    pub(super) wrong_every: usize,
    /// Every so many connections one is closed at once; 0: none.
    pub(super) drop_every: usize,
}

impl Fake {
    pub(super) fn start(manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let address = listener.local_addr()?;
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        let accept = move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (Ok(stream), seen) = (stream, Arc::clone(&shared)) else { continue };
                if manner.drop_every > 0 && number % manner.drop_every == manner.drop_every - 1 {
                    seen.dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                // A connection that gets no thread is closed, and the check that needed it fails.
                let _ = thread::Builder::new().spawn(move || converse(&stream, number, manner, &seen));
            }
        };
        thread::Builder::new().name("fake".to_owned()).spawn(accept).context("cannot start a thread")?;
        Ok(Self { address, seen })
    }

    /// When the questions came, the earliest first, each with the number of its connection.
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
}

fn converse(stream: &TcpStream, number: usize, manner: Manner, seen: &Seen) -> io::Result<()> {
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
        if !manner.delay.is_zero() {
            thread::sleep(manner.delay);
        }
        if manner.wrong_every > 0 && count % manner.wrong_every == 0 {
            seen.wrong.fetch_add(1, Ordering::Relaxed);
            (&*stream).write_all(b"wrong.")?;
        } else {
            (&*stream).write_all(answer_to(&question).as_bytes())?;
        }
    }
    Ok(())
}

/// The hidden command by which this program is started once more.
pub(crate) const SERVER_COMMAND: &str = "selftest-server";

/// A server in a process of its own, which is killed and reaped when this is dropped.
pub(super) struct Freezable {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Freezable {
    /// Starts this very program once more.
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

impl Drop for Freezable {
    fn drop(&mut self) {
        // It is our child and not yet reaped, so this is nobody else.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's part: serves until its parent closes stdin, or is gone.
pub(super) fn serve() -> Result<()> {
    // Who is stopped reads no end of file.
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot follow the parent")?;
    let fake = Fake::start(Manner::default())?;
    println!("{}", fake.address);
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

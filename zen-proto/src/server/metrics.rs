//! --metrics: serves the counters over HTTP, in Prometheus's text format.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags};

use super::addresses::lacks_interface;
use super::constants::BACK_OFF;
use super::counters::{Counters, SERIES};
use super::proc_stats::ProcStats;
use super::socket_io::is_tick;
use super::wait_ready::wait_ready;

/// The values of one scrape.
pub(super) struct Snapshot {
    pub(super) counters: Counters,
    /// The numbers of running and of died child processes; `None` if the server starts none.
    pub(super) workers: Option<(u64, u64)>,
    /// The processes whose processor time, memory and descriptors are reported.
    pub(super) processes: Vec<u32>,
}

/// Starts a thread that answers scrapes.
pub(super) fn serve(address: SocketAddr, snapshot: impl Fn() -> Snapshot + Send + 'static) -> Result<()> {
    ensure!(!lacks_interface(address), "cannot serve metrics on {address}: append %INTERFACE to the address");
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot serve metrics on {address}: choose another --metrics"))?;
    listener.set_nonblocking(true)?;
    log::info!("metrics on http://{}/metrics", listener.local_addr()?);
    thread::Builder::new()
        .name("metrics".into())
        .spawn(move || run(&listener, &snapshot))
        .context("cannot start a thread: raise the limit of threads")?;
    Ok(())
}

/// Serves a bounded number of connections in one loop, so that silent and slow ones do not delay a scrape.
///
/// 1. Sleep in poll() until a connection is ready, a new one arrives, or the oldest one times out.
/// 2. Accept one connection. If there is no room for it, close the oldest.
/// 3. Serve every connection, and close those that are finished, have failed or have timed out.
fn run(listener: &TcpListener, snapshot: &impl Fn() -> Snapshot) -> ! {
    let mut connections: VecDeque<Connection> = VecDeque::new();
    loop {
        wait(listener, &connections);
        let accepted = listener.accept().and_then(|(stream, _)| Connection::new(stream));
        match accepted {
            Ok(connection) => {
                if connections.len() == MAX_CONNECTIONS {
                    connections.pop_front();
                }
                connections.push_back(connection);
            }
            Err(error) if is_tick(&error) => {}
            Err(error) => {
                log::debug!("metrics: {error}");
                connections.pop_front(); // to free a descriptor
                thread::sleep(BACK_OFF);
            }
        }
        let now = Instant::now();
        connections.retain_mut(|connection| {
            let is_open = match connection.serve_once(snapshot) {
                Ok(is_open) => is_open,
                Err(error) if is_tick(&error) => true,
                Err(error) => {
                    log::debug!("metrics: {error}");
                    false
                }
            };
            is_open && now < connection.deadline
        });
    }
}

fn wait(listener: &TcpListener, connections: &VecDeque<Connection>) {
    let mut descriptors = vec![PollFd::new(listener, PollFlags::IN)];
    descriptors.extend(connections.iter().map(|connection| {
        let is_sending = matches!(connection.state, State::Sending(_));
        PollFd::new(&connection.stream, if is_sending { PollFlags::OUT } else { PollFlags::IN })
    }));
    let timeout = connections.front().map(|oldest| oldest.deadline.saturating_duration_since(Instant::now()));
    wait_ready(descriptors, timeout); // every connection is served, whichever are ready
}

/// A connection for one request and one response.
struct Connection {
    stream: TcpStream,
    deadline: Instant,
    state: State,
}

enum State {
    /// The bytes of the request that have been received.
    Receiving(Vec<u8>),
    /// The bytes of the response that have not been sent.
    Sending(Vec<u8>),
    /// The number of bytes that may still be received and discarded. A close with unread bytes would reset the
    /// connection, and the client could lose the response.
    Lingering(usize),
}

impl Connection {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, deadline: Instant::now() + WAIT_LIMIT, state: State::Receiving(Vec::new()) })
    }

    /// Reads and writes at most once. Returns false when the connection is finished.
    fn serve_once(&mut self, snapshot: &impl Fn() -> Snapshot) -> io::Result<bool> {
        let mut chunk = [0; 1024];
        if let State::Receiving(request) = &mut self.state {
            let n = self.stream.read(&mut chunk)?;
            request.extend_from_slice(&chunk[..n]);
            if request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                self.state = State::Sending(response(request, snapshot));
            } else if n == 0 || request.len() > MAX_HEAD {
                return Err(io::Error::other("a request that does not end"));
            }
        } else if let State::Lingering(room) = &mut self.state {
            let n = self.stream.read(&mut chunk)?;
            *room = room.saturating_sub(n);
            return Ok(n > 0 && *room > 0);
        }
        if let State::Sending(rest) = &mut self.state {
            let n = self.stream.write(rest)?;
            rest.drain(..n);
            if rest.is_empty() {
                self.stream.shutdown(Shutdown::Write)?;
                self.state = State::Lingering(LINGER_BYTES);
                self.deadline = self.deadline.min(Instant::now() + LINGER);
            }
        }
        Ok(true)
    }
}

fn response(request: &[u8], snapshot: &impl Fn() -> Snapshot) -> Vec<u8> {
    let request = String::from_utf8_lossy(request);
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => ("200 OK", text(&snapshot())),
        ("GET" | "HEAD", _) => ("404 Not Found", "The metrics are at /metrics.\n".to_owned()),
        _ => ("405 Method Not Allowed", "Only GET is known here.\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if method == "HEAD" { head.into_bytes() } else { (head + &body).into_bytes() }
}

fn text(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let mut latest = "";
    let mut say = |name: &'static str, labels: &str, is_gauge: bool, help: &str, value: &dyn std::fmt::Display| {
        if name != latest {
            let kind = if is_gauge { "gauge" } else { "counter" };
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}"); // writing to a String cannot fail
            latest = name;
        }
        let _ = writeln!(text, "{name}{labels} {value}");
    };
    let (version, commit) = (env!("CARGO_PKG_VERSION"), crate::COMMIT.unwrap_or_default());
    let build = format!("{{version=\"{version}\",commit=\"{commit}\"}}");
    say("zen_build_info", &build, true, "Which version this is, and from which commit.", &1);
    for (series, counter) in SERIES.iter().zip(snapshot.counters.0) {
        say(series.name, series.labels, series.is_gauge, series.help, &counter);
    }
    if let Some((alive, died)) = snapshot.workers {
        say("zen_workers", "", true, "Workers that are alive.", &alive);
        say("zen_worker_exits_total", "", false, "Workers that ended without being told to.", &died);
    }
    for (name, is_gauge, help, value) in ProcStats::of(&snapshot.processes).series() {
        say(name, "", is_gauge, help, &value);
    }
    text
}

/// The most connections at the same time: many more than there are scrapers. Each has a request of a few KiB.
pub(super) const MAX_CONNECTIONS: usize = 32;

/// The longest time of a connection: Prometheus's default timeout.
const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// The time of a lingering close after the response, and the bytes discarded in it, as for a client (rule 8).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

/// The longest request in bytes. Prometheus sends some two hundred.
const MAX_HEAD: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_gets_its_status() -> io::Result<()> {
        let address = served()?;
        let asked = |request: &[u8]| -> io::Result<String> {
            let mut client = TcpStream::connect(address)?;
            client.set_read_timeout(Some(WAIT_LIMIT))?;
            client.write_all(request)?;
            client.shutdown(Shutdown::Write)?;
            let mut said = String::new();
            client.read_to_string(&mut said).map(|_| said)
        };
        let metrics = asked(b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")?;
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"));
        assert!(metrics.contains("\n# TYPE zen_questions_total counter\nzen_questions_total 0\n"));
        assert!(metrics.contains("\nzen_workers 2\n") && metrics.contains("\nzen_worker_exits_total 1\n"));
        assert!(asked(b"HEAD /metrics HTTP/1.1\r\n\r\n")?.ends_with("\r\n\r\n"));
        assert!(asked(b"GET / HTTP/1.1\r\n\r\n")?.starts_with("HTTP/1.1 404 "));
        assert!(asked(b"POST /metrics HTTP/1.1\r\n\r\nbody")?.starts_with("HTTP/1.1 405 "));
        assert_eq!(asked(b"GET /met")?, "");
        assert_eq!(asked(&[b'x'; MAX_HEAD + 1])?, "");
        Ok(())
    }

    #[test]
    fn the_oldest_connection_makes_room() -> io::Result<()> {
        let address = served()?;
        let mut connections = Vec::new();
        for number in 0..=MAX_CONNECTIONS {
            let mut connection = TcpStream::connect(address)?;
            connection.set_read_timeout(Some(WAIT_LIMIT / 2))?;
            // Of every five connections one sends nothing; the others send the beginning of a request.
            connection.write_all(&b"GET /"[..number % 5])?;
            connections.push(connection);
        }
        // The first one is closed before its time is up, and the others are still there.
        assert_eq!(connections.remove(0).read(&mut [0; 1])?, 0);
        let mut last = connections.remove(MAX_CONNECTIONS - 1);
        last.set_nonblocking(true)?;
        assert!(last.read(&mut [0; 1]).is_err_and(|error| is_tick(&error)));
        Ok(())
    }

    #[test]
    fn a_client_that_goes_on_sending_is_closed() -> io::Result<()> {
        let mut client = TcpStream::connect(served()?)?;
        client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
        client.set_write_timeout(Some(WAIT_LIMIT))?;
        // Some MiB fit into the buffers of both sides; far more are refused.
        let refused = (0..64 * 1024).find_map(|_| client.write_all(&[b'x'; 1024]).err());
        assert!(refused.is_some_and(|error| !is_tick(&error)));
        Ok(())
    }

    /// Starts a metrics server in this process, and returns its address.
    fn served() -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let snapshot = || Snapshot { counters: Counters::default(), workers: Some((2, 1)), processes: vec![] };
        thread::spawn(move || run(&listener, &snapshot));
        Ok(address)
    }
}

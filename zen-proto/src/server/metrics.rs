//! --metrics: the figures, in Prometheus's text format, over as much HTTP as that takes.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::accept::BACK_OFF;
use super::figures::{Figures, SERIES};
use super::usage::Usage;

/// What one look at the server, or at a parent and its workers, shows.
pub(super) struct Snapshot {
    pub(super) figures: Figures,
    /// How many workers there are, and how many have died; `None` without --processes.
    pub(super) workers: Option<(u64, u64)>,
    /// Whose processor time, memory and descriptors to tell.
    pub(super) processes: Vec<u32>,
}

/// Where `--metrics [HOST:]PORT` listens: on this machine only, unless told otherwise.
///
/// # Errors
///
/// What it should have been instead.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let addresses = text.to_socket_addrs().map_err(|_| "write PORT, or ADDRESS:PORT".to_owned())?;
    addresses.min_by_key(SocketAddr::is_ipv6).ok_or_else(|| "the name has no address".to_owned())
}

/// Answers whoever scrapes, on a thread of its own.
pub(super) fn serve(address: SocketAddr, look: impl Fn() -> Snapshot + Send + 'static) -> Result<()> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot serve metrics on {address}: choose another --metrics"))?;
    log::info!("metrics on http://{}/metrics", listener.local_addr()?);
    let run = move || {
        for stream in listener.incoming() {
            match stream.map(|stream| answer(stream, &look)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::debug!("metrics: {error}"),
                Err(error) => {
                    log::debug!("metrics: {error}");
                    thread::sleep(BACK_OFF);
                }
            }
        }
    };
    thread::Builder::new()
        .name("metrics".into())
        .spawn(run)
        .context("cannot start a thread: raise the limit of them")?;
    Ok(())
}

/// One request, one answer, then the connection is closed.
fn answer(mut stream: TcpStream, look: &impl Fn() -> Snapshot) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut request = Vec::new();
    read_until(&mut stream, &mut request, end, |head| head.windows(4).any(|bytes| bytes == b"\r\n\r\n"))?;
    let request = String::from_utf8_lossy(&request);
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => ("200 OK", text(&look())),
        ("GET" | "HEAD", _) => ("404 Not Found", "The metrics are at /metrics.\n".to_owned()),
        _ => ("405 Method Not Allowed", "Only GET is known here.\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(head.as_bytes())?;
    if method != "HEAD" {
        stream.write_all(body.as_bytes())?;
    }
    // Whatever else has come is read, or the close would be a reset and take the answer along.
    stream.shutdown(Shutdown::Write)?;
    let _ = read_until(&mut stream, &mut Vec::new(), Instant::now() + PATIENCE, |_| false);
    Ok(())
}

/// Reads until `is_all`; an error is that it is not, by `end`, by the end of file, or after too many bytes.
fn read_until(stream: &mut TcpStream, read: &mut Vec<u8>, end: Instant, is_all: fn(&[u8]) -> bool) -> io::Result<()> {
    let mut chunk = [0; 1024];
    while !is_all(read) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || read.len() > LONGEST_HEAD {
            return Err(io::Error::other("a request that does not end"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => read.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(())
}

fn text(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let mut latest = "";
    let mut say = |name: &'static str, labels: &str, is_gauge: bool, help: &str, value: &dyn std::fmt::Display| {
        if name != latest {
            let kind = if is_gauge { "gauge" } else { "counter" };
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}"); // a String takes everything
            latest = name;
        }
        let _ = writeln!(text, "{name}{labels} {value}");
    };
    let (version, commit) = (env!("CARGO_PKG_VERSION"), crate::COMMIT.unwrap_or_default());
    let build = format!("{{version=\"{version}\",commit=\"{commit}\"}}");
    say("zen_build_info", &build, true, "Which version this is, and from which commit.", &1);
    for (series, figure) in SERIES.iter().zip(snapshot.figures.0) {
        say(series.name, series.labels, series.is_gauge, series.help, &figure);
    }
    if let Some((alive, died)) = snapshot.workers {
        say("zen_workers", "", true, "Workers that are alive.", &alive);
        say("zen_workers_died_total", "", false, "Workers that died and were not told to.", &died);
    }
    for (name, is_gauge, help, value) in Usage::of(&snapshot.processes).series() {
        say(name, "", is_gauge, help, &value);
    }
    text
}

/// How long whoever scrapes may take to ask, to take the answer, and to leave: the next one waits for each.
const PATIENCE: Duration = Duration::from_millis(300);

/// In bytes; Prometheus sends some two hundred.
const LONGEST_HEAD: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_on_this_machine() {
        assert_eq!(parse_address("9160"), Ok(([127, 0, 0, 1], 9160).into()));
        assert_eq!(parse_address("0.0.0.0:0"), Ok(([0, 0, 0, 0], 0).into()));
        assert_eq!(parse_address("[::1]:80"), Ok((std::net::Ipv6Addr::LOCALHOST, 80).into()));
        assert!(
            ["", "65536", "127.0.0.1", ":80", "no.such.name.invalid:80"]
                .iter()
                .all(|text| parse_address(text).is_err())
        );
    }

    #[test]
    fn who_asks_is_answered_whatever_it_asks() -> io::Result<()> {
        let asked = |request: &[u8]| -> io::Result<String> {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let mut client = TcpStream::connect(listener.local_addr()?)?;
            client.write_all(request)?;
            let snapshot = || Snapshot { figures: Figures::default(), workers: Some((2, 1)), processes: vec![] };
            client.shutdown(Shutdown::Write)?;
            let _ = answer(listener.accept()?.0, &snapshot); // what is wrong with a request is its client's affair
            let mut said = String::new();
            client.read_to_string(&mut said).map(|_| said)
        };
        let metrics = asked(b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")?;
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"));
        assert!(metrics.contains("\n# TYPE zen_questions_total counter\nzen_questions_total 0\n"));
        assert!(metrics.contains("\nzen_workers 2\n") && metrics.contains("\nzen_workers_died_total 1\n"));
        assert!(asked(b"HEAD /metrics HTTP/1.1\r\n\r\n")?.ends_with("\r\n\r\n"));
        assert!(asked(b"GET / HTTP/1.1\r\n\r\n")?.starts_with("HTTP/1.1 404 "));
        assert!(asked(b"POST /metrics HTTP/1.1\r\n\r\nbody")?.starts_with("HTTP/1.1 405 "));
        assert_eq!(asked(b"GET /met")?, "");
        Ok(())
    }
}

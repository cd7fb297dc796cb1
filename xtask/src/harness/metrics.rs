//! The metrics of a server with `--metrics`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};

use super::{Server, WAIT_LIMIT};

/// Returns the current value of every series, such as 7 for `zen_connections_accepted_total`.
pub(crate) fn scrape(server: &Server) -> Result<BTreeMap<String, f64>> {
    let series = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    let text = text(metrics_of(server)?)?;
    Ok(text.lines().filter(|line| !line.starts_with('#')).filter_map(series).collect())
}

/// Returns the address of the server's metrics, which the log names at start.
pub(crate) fn metrics_of(server: &Server) -> Result<SocketAddr> {
    let address = server.wait_for_log(WAIT_LIMIT, |log| {
        let (_, rest) = log.split_once("metrics on http://")?;
        rest.split_once("/metrics\n")?.0.parse().ok()
    });
    address.context("the log does not say where its metrics are")
}

/// Returns all metrics, in Prometheus's format.
pub(crate) fn text(address: SocketAddr) -> Result<String> {
    let (head, body) = ask(address, "/metrics")?;
    ensure!(head.contains("\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
    Ok(body)
}

/// Returns head and body of the page at this path.
pub(crate) fn ask(address: SocketAddr, path: &str) -> Result<(String, String)> {
    // Version 1.0: the page ends with the connection, whatever the server.
    let answer = exchange(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "{path}: {head}");
    Ok((head.to_owned(), body.to_owned()))
}

/// Sends a request and returns the whole response.
pub(crate) fn exchange(address: SocketAddr, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT_LIMIT)?;
    stream.set_read_timeout(Some(WAIT_LIMIT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

//! What the kernel holds for the clients of a server, from /proc/net/tcp.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Instant;

use anyhow::{Context, Result};

/// A connection as its server's side of the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    /// The client's address.
    pub(crate) client: SocketAddr,
    /// Bytes that the server has written and the client has not acknowledged.
    pub(crate) unsent: u64,
}

/// The queues of a server, read one after the other.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) all: Vec<Queue>,
    /// When the first and the last of them was read, or a little outside that.
    pub(crate) read_between: (Instant, Instant),
}

impl Queues {
    /// How much the server has written that this client has not acknowledged.
    pub(crate) fn unsent(&self, client: SocketAddr) -> u64 {
        self.all.iter().find(|queue| queue.client == client).map_or(0, |queue| queue.unsent)
    }
}

/// The queues of all connections of the server that listens on `server`, which is an IPv4 address; also of those that
/// the server has closed.
pub(crate) fn queues(server: SocketAddr) -> Result<Queues> {
    let start = Instant::now();
    let table = fs::read_to_string("/proc/net/tcp").context("/proc/net/tcp")?;
    let of_server = |line| queue(line).filter(|(local, _)| *local == server).map(|(_, queue)| queue);
    // The first line is the heading.
    let all = table.lines().skip(1).filter_map(of_server).collect();
    Ok(Queues { all, read_between: (start, Instant::now()) })
}

/// The local address and the queue in `SLOT: LOCAL REMOTE STATE UNSENT:UNREAD …`; `None` for a listener, whose numbers mean
/// something else.
fn queue(line: &str) -> Option<(SocketAddr, Queue)> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, client) = (address(fields.next()?)?, address(fields.next()?)?);
    if fields.next()? == LISTENING {
        return None;
    }
    let (unsent, _) = fields.next()?.split_once(':')?;
    Some((local, Queue { client, unsent: u64::from_str_radix(unsent, 16).ok()? }))
}

/// `0100007F:1F90` is 127.0.0.1:8080 where the lower byte comes first in memory.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    Some(SocketAddrV4::new(ip, u16::from_str_radix(port, 16).ok()?).into())
}

/// TCP_LISTEN, as include/net/tcp_states.h numbers it.
const LISTENING: &str = "0A";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_is_read() {
        let line = "  12: 0100007F:1F90 0200007F:C350 01 0001FFFF:00000010 00:00000000 00000000  1000        0 123 1";
        let client = SocketAddr::from(([127, 0, 0, 2], 50000));
        let expected = (SocketAddr::from(([127, 0, 0, 1], 8080)), Queue { client, unsent: 0x1ffff });
        assert_eq!(queue(line), Some(expected));
        assert_eq!(queue(&line.replace(" 01 ", " 0A ")), None);
        assert_eq!(queue("sl local_address"), None);
    }
}

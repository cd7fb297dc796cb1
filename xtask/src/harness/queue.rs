//! Bytes that the kernel still holds for a client, read from sock_diag(7) as `ss` does. /proc/net/tcp takes long to
//! read after many connections.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::Missing;

/// Returns the bytes that the server has written and the client has not acknowledged; 0 if there is no such connection.
/// Both addresses are IPv4. A connection that the server has closed is found as long as the kernel delivers its bytes.
pub(crate) fn unsent(server: SocketAddr, client: SocketAddr) -> Result<u32> {
    let (SocketAddr::V4(server), SocketAddr::V4(client)) = (server, client) else {
        bail!("IPv4 addresses are expected")
    };
    let netlink = Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, Some(Protocol::from(NETLINK_SOCK_DIAG)))
        .map_err(|_| Missing("the kernel's sock_diag".to_owned()))?;
    netlink.set_read_timeout(Some(Duration::from_secs(5)))?;

    // struct nlmsghdr, then struct inet_diag_req_v2 of linux/inet_diag.h.
    let mut request = Vec::with_capacity(REQUEST_LENGTH);
    request.extend(u32::to_ne_bytes(REQUEST_LENGTH as u32));
    request.extend([SOCK_DIAG_BY_FAMILY.to_ne_bytes(), NLM_F_REQUEST.to_ne_bytes()].concat());
    request.extend([0; 8]);
    request.extend([AF_INET, IPPROTO_TCP, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes()); // in any state
    request.extend([server.port().to_be_bytes(), client.port().to_be_bytes()].concat());
    for address in [server, client] {
        request.extend(address.ip().octets());
        request.extend([0; 12]);
    }
    request.extend([0; 4]); // on any interface
    request.extend([0xff; 8]); // with any cookie
    (&netlink).write_all(&request).context("cannot send a request to sock_diag")?;

    let mut response = [0; 4096];
    let length = (&netlink).read(&mut response).context("no response from sock_diag")?;
    let response = &response[..length];
    let number = |at: usize| response.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    if response.get(4..6) == Some(&NLMSG_ERROR.to_ne_bytes()) {
        let errno = number(16).map_or(0, u32::cast_signed);
        ensure!(errno == -ENOENT, "sock_diag reports error {errno}");
        return Ok(0);
    }
    // struct inet_diag_msg. Where there is no connection, the kernel describes the listener.
    let is_listener = response.get(17) == Some(&TCP_LISTEN);
    let unsent = number(76).context("the response of sock_diag is too short")?;
    Ok(if is_listener { 0 } else { unsent })
}

/// The length of a request: a `struct nlmsghdr` and a `struct inet_diag_req_v2`.
const REQUEST_LENGTH: usize = 16 + 56;

// Names and values of the kernel's headers.
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const AF_INET: u8 = 2;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u8 = 10;
const ENOENT: i32 = 2;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::super::{WAIT_LIMIT, wait_for};
    use super::*;

    #[test]
    fn unacknowledged_bytes_are_counted() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let server = listener.local_addr().expect("it is bound");
        let client = TcpStream::connect(server).expect("it listens");
        let address = client.local_addr().expect("it is connected");
        let (stream, _) = listener.accept().expect("a client has connected");
        assert_eq!(unsent(server, address).expect("it is asked"), 0);
        stream.set_nonblocking(true).expect("it can be set");
        // The kernel may still be delivering bytes when a write finds no room, and enlarge the client's buffer.
        let unsent = || unsent(server, address).expect("it is asked");
        let is_full = || {
            while (&stream).write(&[0; 65536]).is_ok() {}
            (unsent() > 65536).then_some(())
        };
        wait_for(WAIT_LIMIT, is_full).expect("bytes stay with the kernel");
        drop(client);
        wait_for(WAIT_LIMIT, || (unsent() == 0).then_some(())).expect("only the listener is left");
    }
}

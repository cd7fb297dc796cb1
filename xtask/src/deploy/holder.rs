//! A listener that outlives its servers, as systemd keeps it for `zen@.socket`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Result;
use socket2::{Domain, Socket, Type};

use crate::harness::{Server, WAIT_LIMIT};
use crate::servers::Entry;

/// A listener, and the server that uses it now.
pub(super) struct Holder {
    entry: &'static Entry,
    listener: TcpListener,
    server: Server,
}

impl Holder {
    /// Listens, and starts the first server.
    pub(super) fn start(entry: &'static Entry) -> Result<Holder> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        let server = Server::start_on(&listener, entry, ARGUMENTS)?;
        Ok(Holder { entry, listener, server })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Stops the server, which must exit cleanly, and starts the next one; meanwhile clients wait in the backlog.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.server.stop(WAIT_LIMIT)?;
        self.server = Server::start_on(&self.listener, self.entry, ARGUMENTS)?;
        Ok(())
    }
}

/// The backlog: enough for the clients that connect, a thousand a second, while a slow machine starts a server.
const BACKLOG: i32 = 4096;

/// The limit of clients: the next server accepts the whole backlog immediately.
const ARGUMENTS: &[&str] = &["--max-connections", "4096"];

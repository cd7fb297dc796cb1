//! A listener that outlives its servers: what systemd does with `zen@.socket`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Result;
use socket2::{Domain, Socket, Type};

use crate::harness::{Server, WAIT_LIMIT};
use crate::servers::Entry;

/// It keeps the listener open, and one server on it.
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

    /// Stops the server, which must end well, and starts the next one: in between clients wait in the kernel.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.server.stop(WAIT_LIMIT)?;
        self.server = Server::start_on(&self.listener, self.entry, ARGUMENTS)?;
        Ok(())
    }
}

/// Of a thousand clients a second so many wait while a slow machine starts a server.
const BACKLOG: i32 = 4096;

/// And all who have waited come at once.
const ARGUMENTS: &[&str] = &["--max-connections", "4096"];

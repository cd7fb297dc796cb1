//! A client for transcripts: literal bytes out, literal bytes in, and a timeout on each step.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{WAIT_LIMIT, shown};

/// The questions with their answers.
pub(crate) const APHORISMS: [(&[u8], &[u8]); 3] = [
    (b"Beautiful is better than?", b"ugly."),
    (b"Explicit is better than?", b"implicit."),
    (b"Simple is better than?", b"complex."),
];

/// A connected client.
pub(crate) struct Client {
    stream: TcpStream,
}

/// Connects within `limit`.
pub(crate) fn connect(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, limit)?;
    refuse_self(&stream, address)?;
    Ok(stream)
}

/// Refuses a connection from a socket to itself. TCP makes one where no server listens yet, or any more, and the kernel
/// chooses the same port for the client.
pub(crate) fn refuse_self(stream: impl AsFd, target: SocketAddr) -> io::Result<()> {
    let stream = SockRef::from(&stream);
    if stream.local_addr()?.as_socket() != Some(target) {
        return Ok(());
    }
    // A reset leaves no TIME_WAIT, in which the port would be lost to the server.
    stream.set_linger(Some(Duration::ZERO))?;
    Err(ErrorKind::ConnectionRefused.into())
}

impl Client {
    /// Connects; each later step may take [`WAIT_LIMIT`].
    pub(crate) fn connect(address: SocketAddr) -> Result<Client> {
        let mut address = address;
        if address.ip().is_unspecified() {
            // A server that listens on every address can be reached on IPv4's loopback, also without IPv6.
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let stream = connect(address, WAIT_LIMIT).context("cannot connect")?;
        Client::over(stream)
    }

    /// Connects with a receive buffer of about `bytes`, which soon fills up when the client does not read.
    pub(crate) fn connect_with_buffer(address: SocketAddr, bytes: usize) -> Result<Client> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Before connecting, because the first segment announces the window.
        socket.set_recv_buffer_size(bytes)?;
        socket.connect_timeout(&address.into(), WAIT_LIMIT).context("cannot connect")?;
        refuse_self(&socket, address)?;
        Client::over(socket.into())
    }

    fn over(stream: TcpStream) -> Result<Client> {
        stream.set_nodelay(true)?;
        let mut client = Client { stream };
        client.set_timeout(WAIT_LIMIT)?;
        Ok(client)
    }

    /// Changes how long each step may take.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(timeout))?;
        self.stream.set_write_timeout(Some(timeout))?;
        Ok(())
    }

    /// Sends these bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).with_context(|| format!("cannot send {}", shown(bytes)))
    }

    /// Sends as many of these bytes as the kernel takes without waiting; returns how many.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match rustix::net::send(&self.stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(n) => Ok(n),
            Err(Errno::AGAIN) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends the last of these bytes as urgent data.
    pub(crate) fn send_urgent(&mut self, bytes: &[u8]) -> Result<()> {
        let n = SockRef::from(&self.stream).send_out_of_band(bytes).context("cannot send urgent data")?;
        ensure!(n == bytes.len(), "only {n} bytes of urgent data were sent");
        Ok(())
    }

    /// Reads exactly these bytes; what follows them is left unread.
    pub(crate) fn expect(&mut self, bytes: &[u8]) -> Result<()> {
        let mut got = vec![0; bytes.len()];
        let mut filled = 0;
        while filled < got.len() && got[..filled] == bytes[..filled] {
            match self.stream.read(&mut got[filled..]) {
                Ok(0) => bail!("end of file after {}, expected {}", shown(&got[..filled]), shown(bytes)),
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => bail!("{} after {}, expected {}", named(&error), shown(&got[..filled]), shown(bytes)),
            }
        }
        ensure!(got[..filled] == *bytes, "received {}, expected {}", shown(&got[..filled]), shown(bytes));
        Ok(())
    }

    /// Sends a question and expects its answer.
    pub(crate) fn ask(&mut self, question: &[u8], answer: &[u8]) -> Result<()> {
        self.send(question)?;
        self.expect(answer)
    }

    /// Asks the three aphorisms and expects their answers.
    pub(crate) fn ask_all(&mut self) -> Result<()> {
        APHORISMS.iter().try_for_each(|(question, answer)| self.ask(question, answer))
    }

    /// Expects that the server ends its sending side without a reset and without further bytes.
    pub(crate) fn expect_end(&mut self) -> Result<()> {
        match self.read_some()? {
            Received::Bytes(bytes) => bail!("received {}, expected end of file", shown(&bytes)),
            Received::End => Ok(()),
            Received::Reset => bail!("received a reset, expected end of file"),
            Received::Nothing => bail!("received nothing, expected end of file"),
        }
    }

    /// Expects that the server resets the connection; bytes before the reset are ignored.
    pub(crate) fn expect_reset(&mut self) -> Result<()> {
        loop {
            match self.read_some()? {
                Received::Bytes(_) => {}
                Received::Reset => return Ok(()),
                Received::End => bail!("received end of file, expected a reset"),
                Received::Nothing => bail!("received nothing, expected a reset"),
            }
        }
    }

    /// Expects that the server sends nothing for `time`.
    pub(crate) fn expect_silence(&mut self, time: Duration) -> Result<()> {
        self.set_timeout(time)?;
        let received = self.read_some()?;
        self.set_timeout(WAIT_LIMIT)?;
        match received {
            Received::Nothing => Ok(()),
            received => bail!("received {received:?}, expected silence"),
        }
    }

    /// Waits for the next event: bytes, end of file, a reset, or the timeout.
    pub(crate) fn read_some(&mut self) -> Result<Received> {
        let mut chunk = vec![0; 65536];
        loop {
            return Ok(match self.stream.read(&mut chunk) {
                Ok(0) => Received::End,
                Ok(n) => {
                    chunk.truncate(n);
                    Received::Bytes(chunk)
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => Received::Nothing,
                    ErrorKind::ConnectionReset => Received::Reset,
                    _ => return Err(error.into()),
                },
            });
        }
    }

    /// Reads what is there already, without waiting.
    pub(crate) fn try_read(&mut self) -> Result<Received> {
        self.stream.set_nonblocking(true)?;
        let received = self.read_some();
        self.stream.set_nonblocking(false)?;
        received
    }

    /// Shuts down the sending side: the server reads end of file.
    pub(crate) fn end_sending(&mut self) -> Result<()> {
        self.stream.shutdown(Shutdown::Write).context("cannot end the sending side")
    }

    /// Shuts down the sending side, and waits until the server has closed.
    pub(crate) fn leave(mut self) -> Result<()> {
        self.end_sending()?;
        self.expect_end()
    }

    /// Resets the connection.
    pub(crate) fn reset(self) -> Result<()> {
        // A linger time of zero turns the close into a reset.
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).context("cannot set the linger time")
    }

    /// Returns the stream, for calls that this type does not have.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// What a client received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Bytes(Vec<u8>),
    End,
    Reset,
    /// Nothing before the client's timeout.
    Nothing,
}

fn named(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "nothing".into(),
        ErrorKind::ConnectionReset => "a reset".into(),
        _ => error.to_string(),
    }
}

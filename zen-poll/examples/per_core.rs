//! A listener and a loop for each thread, with SO_REUSEPORT: the kernel distributes the clients among the loops.
//!
//! In zen-poll the first loop accepts for all loops, and hands each client to the loop with the fewest clients. Here
//! every thread has its own listener on the same port. The kernel chooses a listener for each new connection by a hash
//! of its addresses and ports. Each thread runs the loop of `raw.rs`.
//!
//! - Advantages: no served client passes from one thread to another, no loop wakes another, accept() has no common
//!   lock.
//! - Disadvantages: the hash ignores how many clients a loop has, so one loop may have most of them. While a loop works
//!   on a slow answer, its new clients wait in its backlog, even if another loop sleeps. When a listener is closed, the
//!   clients in its backlog are reset.
//!
//! ```console
//! $ cargo run -p zen-poll --example per_core -- --loops 2
//! $ cargo run -p zen-client -- check
//! ```

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use clap::Parser;
use socket2::{SockRef, Socket, Type};
use zen_proto::server::{self, Accepted, Options, Server, Waiting};

#[expect(dead_code, reason = "this example has another `main`")]
mod raw;

/// Serves the aphorisms from loops that have a listener each.
#[derive(Debug, Parser)]
#[command(version = zen_proto::VERSION)]
struct Arguments {
    /// Number of loops, each in a thread of its own [default: one for each processor]
    #[arg(long, value_name = "N")]
    loops: Option<NonZeroUsize>,

    #[command(flatten)]
    common: Options,
}

impl server::Arguments for Arguments {
    fn common(&self) -> &Options {
        &self.common
    }
}

fn main() -> ExitCode {
    server::main(|arguments: Arguments| {
        let processors = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let loops = arguments.loops.map_or_else(processors, NonZeroUsize::get);
        let server = Server::listen(&arguments.common, Waiting::ForReadiness { pollers: loops }, None)?;
        let first = server.listener().context("every loop needs a listener: start without --inetd nowait")?;
        SockRef::from(&first).set_reuse_port(true)?; // otherwise the others cannot bind this address
        let listen = |_| open_listener(&first, arguments.common.backlog).context("cannot listen once for each loop");
        let others: Vec<_> = (1..loops).map(listen).collect::<Result<_>>()?;
        thread::scope(|scope| {
            for (number, listener) in (2..).zip(others) {
                thread::Builder::new()
                    .name(format!("loop-{number}"))
                    .spawn_scoped(scope, || serve_or_stop(server, listener))
                    .inspect_err(|_| server.stop.request()) // otherwise the scope would wait for the started loops
                    .context("cannot start all loops: lower --loops")?;
            }
            serve_or_stop(server, first);
            Ok(())
        })
    })
}

/// Opens one more listener on the address of `first`, with the same options.
fn open_listener(first: &OwnedFd, backlog: u32) -> Result<Arc<OwnedFd>> {
    let address = SockRef::from(first).local_addr()?;
    let listener = Socket::new(address.domain(), Type::STREAM, None)?;
    listener.set_reuse_port(true)?;
    listener.set_reuse_address(true)?;
    if address.is_ipv6() {
        listener.set_only_v6(SockRef::from(first).only_v6()?)?;
    }
    listener.set_tcp_nodelay(true)?;
    listener.set_send_buffer_size(SockRef::from(first).send_buffer_size()? / 2)?; // the kernel doubles it
    listener.set_nonblocking(true)?;
    listener.bind(&address)?;
    listener.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(Arc::new(listener.into()))
}

/// Runs one loop. If its poller fails, the other loops drain and the server ends.
fn serve_or_stop(server: &'static Server, listener: Arc<OwnedFd>) {
    let accept = |listener: Option<&OwnedFd>| listener.map_or(Accepted::Closed, |it| server.try_accept_from(it));
    if let Err(error) = raw::serve(server, Some(listener), accept) {
        server.stop.fail(error.context("cannot wait for events: restart the server"));
    }
}

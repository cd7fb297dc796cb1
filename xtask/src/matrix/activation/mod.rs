//! Servers that others start: inetd and systemd, with a listener or with one client.

pub(crate) mod direct;
pub(crate) mod inetd;
pub(crate) mod systemd;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Case, bare};
use crate::harness::PATIENCE;
use crate::harness::group::run_within;
use crate::workspace;

/// `zen-client check --quick`: not a byte too many or too few.
fn is_conformant(address: SocketAddr) -> Result<()> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut client = Command::new(workspace::binary("zen-client")?);
    let output =
        run_within(2 * PATIENCE, client.args(["check", &host, "-p", &port, "--quick"])).context("zen-client check")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// An address that is free now, for programs that cannot be asked to choose.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

//! What several rows need: the parts as they lie in the checkout, a folder to put them together in, and the judge.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, process};

use anyhow::{Context, Result, ensure};

use crate::harness::PATIENCE;
use crate::harness::group::run_within;
use crate::workspace;

/// The file of this name in `xtask/deploy/`.
pub(super) fn part(name: &str) -> Result<String> {
    let path = workspace::root()?.join("xtask/deploy").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// A temporary folder, removed when this goes.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Folder> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("zen-deploy-{}-{number}", process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Folder(path))
    }

    /// Writes a file and says where it is.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An address that is free now, for programs that cannot be asked to choose.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// `zen-client check --quick`: not a byte too many or too few.
pub(super) fn is_conformant(address: SocketAddr) -> Result<()> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut client = Command::new(workspace::binary("zen-client")?);
    succeeds(client.args(["check", &host, "-p", &port, "--quick"])).map(drop)
}

/// What the command says, stdout and stderr together; an error with all of it if it fails.
pub(super) fn succeeds(command: &mut Command) -> Result<String> {
    let output = run_within(2 * PATIENCE, command)?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    Ok(said)
}

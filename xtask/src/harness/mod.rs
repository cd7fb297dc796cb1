//! Starts servers and talks to them, with a hard bound on every wait.

pub(crate) mod activation;
pub(crate) mod capture;
pub(crate) mod client;
pub(crate) mod folder;
pub(crate) mod group;
pub(crate) mod honest;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod queue;
pub(crate) mod server;
pub(crate) mod tracer;
pub(crate) mod verdict;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub(crate) use client::Client;
pub(crate) use server::Server;

use crate::workspace;

/// How long an answer, an end or a start may take before the test gives up: a bound on the wait, never a
/// measurement, so it is long enough for a machine that is busy with something else.
pub(crate) const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// Looks again and again until `look` finds something, at most for `limit`.
pub(crate) fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A tool or a right that a test needs and this machine has not. The test then says so and passes, except in CI.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not tried: {} is missing here", self.0)
    }
}

impl std::error::Error for Missing {}

/// Whether a server has ended with these words because it cannot have io_uring, which containers and sysctls refuse.
pub(crate) fn lacks_io_uring(stderr: &str) -> bool {
    stderr.contains("error: the kernel refuses io_uring")
}

/// Where `tool` is installed; an error of kind [`Missing`] if it is not.
pub(crate) fn tool(tool: &str) -> Result<PathBuf> {
    // Debian keeps some of them where an ordinary user's PATH does not look.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(tool)).find(|file| file.is_file());
    Ok(found.ok_or_else(|| Missing(named(tool)))?)
}

/// With the Debian package that has it.
fn named(tool: &str) -> String {
    match PACKAGES.iter().find(|(_, tools)| tools.contains(&tool)) {
        Some((package, _)) => format!("{tool} (apt install {package})"),
        None => tool.to_owned(),
    }
}

/// Whether this is one of the programs that not every machine has.
pub(crate) fn may_be_missing(word: &str) -> bool {
    PACKAGES.iter().any(|(_, tools)| tools.contains(&word))
}

/// Debian packages, and which of their programs are used here.
const PACKAGES: &[(&str, &[&str])] = &[
    ("bash", &["bash"]),
    ("chromium", &["chromium"]),
    ("coreutils", &["env", "id", "nice", "timeout"]),
    ("dnsmasq-base", &["dnsmasq"]),
    ("fish", &["fish"]),
    ("git", &["git"]),
    ("groff", &["groff"]),
    ("haproxy", &["haproxy"]),
    ("iproute2", &["ip"]),
    ("logrotate", &["logrotate"]),
    ("mandoc", &["mandoc"]),
    ("mount", &["mount"]),
    ("openbsd-inetd", &["inetd"]),
    ("prometheus", &["prometheus", "promtool"]),
    ("python3", &["python3"]),
    ("strace", &["strace"]),
    ("systemd", &["systemd-analyze", "systemd-socket-activate"]),
    ("tar", &["tar"]),
    ("util-linux", &["nsenter", "prlimit", "unshare"]),
    ("zsh", &["zsh"]),
];

/// strace, if it is installed and may trace.
pub(crate) fn strace() -> Result<PathBuf> {
    static MAY: OnceLock<bool> = OnceLock::new();
    let strace = tool("strace")?;
    let may_trace = || {
        let tried = group::run_within(WAIT_LIMIT, Command::new(&strace).args(["-f", "-o", "/dev/null", "true"]));
        tried.is_ok_and(|output| output.status.success())
    };
    ensure!(*MAY.get_or_init(may_trace), Missing("the right to trace".to_owned()));
    Ok(strace)
}

/// A git that works on this checkout and on no other, also where the files belong to another user: as we build what
/// lies here, we trust it. An error of kind [`Missing`] without git, or without a `.git`.
pub(crate) fn git() -> Result<Command> {
    let (root, git) = (workspace::root()?, tool("git")?);
    let folder = root.join(".git");
    ensure!(folder.exists(), Missing("a checkout of git".to_owned()));
    let mut command = Command::new(git);
    // A folder that is named is not looked for farther up, and its owner not asked for.
    command.arg("--git-dir").arg(folder).arg("--work-tree").arg(root).arg("--no-optional-locks").current_dir(root);
    Ok(command)
}

/// Whether this is CI, where a missing tool is a failure.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false")
}

/// An address that is free now, for programs that cannot be asked to choose.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// `zen-client check`: not a byte too many or too few.
pub(crate) fn is_conformant(address: SocketAddr) -> Result<()> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut client = Command::new(workspace::binary("zen-client")?);
    let output = group::run_within(6 * WAIT_LIMIT, client.args(["check", &host, "-p", &port, "--timeout", "20s"]))
        .context("zen-client check")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    Ok(())
}

/// Bytes as a test prints them: what is not printable is escaped, and what is long is cut.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const SHOWN: usize = 200;
    let head = &bytes[..bytes.len().min(SHOWN)];
    let cut = if bytes.len() > SHOWN { format!("… ({} bytes)", bytes.len()) } else { String::new() };
    format!("\"{}\"{cut}", head.escape_ascii())
}

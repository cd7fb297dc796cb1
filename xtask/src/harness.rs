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
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use rustix::process::getuid;

pub(crate) use client::Client;
pub(crate) use server::Server;

use crate::workspace;

/// The time limit of each wait: for an answer, an exit, a start. It only keeps a test from hanging, so it is long
/// enough for a busy machine.
pub(crate) const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// Calls `look` every 2 ms until it finds something, at most for `limit`.
pub(crate) fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A tool or a permission that a test needs and this machine lacks. The test then says so and passes, except in CI.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not tried: {} is missing here", self.0)
    }
}

impl std::error::Error for Missing {}

/// Returns whether a server exited because the kernel refuses io_uring, as in containers or by sysctl.
pub(crate) fn lacks_io_uring(stderr: &str) -> bool {
    stderr.contains("error: the kernel refuses io_uring")
}

/// Returns the path of `tool`; an error of type [`Missing`] if it is not installed.
pub(crate) fn tool(tool: &str) -> Result<PathBuf> {
    // Debian keeps some of them in /usr/sbin, which is not in an ordinary user's PATH.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(tool)).find(|file| file.is_file());
    Ok(found.ok_or_else(|| Missing(named(tool)))?)
}

/// Returns the tool's name, with the Debian package that contains it.
fn named(tool: &str) -> String {
    match PACKAGES.iter().find(|(_, tools)| tools.contains(&tool)) {
        Some((package, _)) => format!("{tool} (apt install {package})"),
        None => tool.to_owned(),
    }
}

/// Returns whether `word` is the name of a program that may not be installed.
pub(crate) fn may_be_missing(word: &str) -> bool {
    PACKAGES.iter().any(|(_, tools)| tools.contains(&word))
}

/// Debian packages, each with those of its programs that are used here.
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
    ("libxml2-utils", &["xmllint"]),
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

/// Returns the path of strace if it is installed and may trace.
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

/// Returns the wrapper that starts a program with /proc hidden; an error of type [`Missing`] unless this is root.
pub(crate) fn without_proc() -> Result<[&'static str; 6]> {
    ensure!(getuid().is_root(), Missing("root, which hiding /proc needs,".to_owned()));
    Ok(["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"])
}

/// Returns a command for headless Chromium without background network traffic.
pub(crate) fn chromium() -> Result<Command> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found: Option<PathBuf> = names.iter().find_map(|name| tool(name).ok());
    let mut command = Command::new(found.ok_or_else(|| Missing("chromium".to_owned()))?);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]);
    Ok(command)
}

/// Returns a `git` command for this checkout, even if its files belong to another user: their code is built and run
/// anyway. An error of type [`Missing`] without git, or without a `.git`.
pub(crate) fn git() -> Result<Command> {
    let (root, git) = (workspace::root()?, tool("git")?);
    let folder = root.join(".git");
    ensure!(folder.exists(), Missing("a checkout of git".to_owned()));
    let mut command = Command::new(git);
    // Given `--git-dir`, git searches no parent folder and does not check the owner.
    command.arg("--git-dir").arg(folder).arg("--work-tree").arg(root).arg("--no-optional-locks").current_dir(root);
    Ok(command)
}

/// Returns whether this is CI, where a missing tool is a failure.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false")
}

/// Returns an address whose port is free now, for programs that cannot choose a free port themselves.
pub(crate) fn free_address() -> Result<SocketAddr> {
    free_address_on(Ipv4Addr::LOCALHOST)
}

/// Returns an address of this host whose port is free now.
pub(crate) fn free_address_on(host: Ipv4Addr) -> Result<SocketAddr> {
    Ok(TcpListener::bind((host, 0))?.local_addr()?)
}

/// Returns the command `zen-client VERB` for the server at this address.
pub(crate) fn zen_client(verb: &str, address: SocketAddr) -> Result<Command> {
    let mut client = Command::new(workspace::binary("zen-client")?);
    client.args([verb, &address.ip().to_string(), "-p", &address.port().to_string()]);
    Ok(client)
}

/// Expects that a server passes all cases of `zen-client check`.
pub(crate) fn expect_conformant(address: SocketAddr) -> Result<()> {
    passes(address, &["--timeout", "20s"])
}

/// Expects that a server passes `zen-client check` with these arguments.
pub(crate) fn passes(address: SocketAddr, arguments: &[&str]) -> Result<()> {
    let output = group::run_within(6 * WAIT_LIMIT, zen_client("check", address)?.args(arguments))?;
    let printed = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "zen-client check: {}: {}", output.status, String::from_utf8_lossy(&printed));
    Ok(())
}

/// Calls `work` in this number of threads at the same time. Each thread passes its number, counted from 0.
pub(crate) fn at_once<T: Send>(threads: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let work = &work;
    thread::scope(|scope| {
        let working: Vec<_> = (0..threads).map(|n| scope.spawn(move || work(n))).collect();
        working.into_iter().map(|one| one.join().map_err(|_| anyhow!("a client panicked"))?).collect()
    })
}

/// Expects this exit status, exactly one line `error: …` on stderr, and nothing on stdout.
pub(crate) fn expect_one_error(output: &Output, code: i32) -> Result<()> {
    let is_line = output.stderr.starts_with(b"error: ")
        && output.stderr.iter().position(|&b| b == b'\n') == output.stderr.len().checked_sub(1);
    let is_right = output.status.code() == Some(code) && output.stdout.is_empty() && is_line;
    ensure!(
        is_right,
        "expected status {code} and one line `error: …` on stderr alone, but: {}, stdout {}, stderr {}",
        output.status,
        shown(&output.stdout),
        shown(&output.stderr)
    );
    Ok(())
}

/// Formats bytes for an error message: what is not printable is escaped, and the rest is cut after 200 bytes.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const SHOWN: usize = 200;
    let head = &bytes[..bytes.len().min(SHOWN)];
    let cut = if bytes.len() > SHOWN { format!("… ({} bytes)", bytes.len()) } else { String::new() };
    format!("\"{}\"{cut}", head.escape_ascii())
}

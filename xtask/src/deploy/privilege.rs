//! privilege: the unit restricts a server to few privileges, which are enough to serve.

mod filter;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Signal, getuid, set_child_subreaper};

use super::fixture::{every, on_each, part, succeeds};
use super::unit::Unit;
use crate::harness::folder::Folder;
use crate::harness::metrics::scrape;
use crate::harness::verdict::{Ctx, ended, served};
use crate::harness::{Missing, WAIT_LIMIT, expect_conformant, process, tool, wait_for};
use crate::servers::Entry;
use crate::trial::{self, Trial};

pub(crate) fn trials() -> Result<Vec<Trial>> {
    let cases = [
        vec![
            Trial::new("deploy::privilege::exposure", exposure),
            Trial::new("deploy::privilege::the_filter_bites", the_filter_bites),
        ],
        on_each("privilege::serves", every, serves),
        on_each("privilege::resets", every, resets),
        on_each("privilege::sees_no_other", every, sees_no_other),
    ];
    Ok(cases.into_iter().flatten().collect())
}

/// Executes a command under the unit's filter of system calls
#[derive(clap::Args)]
#[command(hide = true)]
pub(super) struct Confined {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

pub(super) fn confined(flags: &Confined) -> Result<ExitCode> {
    let (program, arguments) = flags.command.split_first().context("clap wants a command")?;
    // Orphans of the command belong to the parent of this task.
    set_child_subreaper(None)?;
    filter::install(&Unit::of(PORT)?)?;
    let error = Command::new(program).args(arguments).exec();
    bail!("cannot execute {}: {error}", program.display())
}

/// systemd rates the unit without installing it: 0 is fully restricted, 10 is unrestricted.
fn exposure() -> Result<()> {
    let folder = Folder::new()?;
    let unit = folder.write("zen@1060.service", &part("zen@.service")?)?;
    let mut command = Command::new(tool("systemd-analyze")?);
    command.args(["security", "--offline=true", "--no-pager"]).arg(unit);
    let printed = succeeds(&mut command)?;
    let level = printed.lines().find_map(|line| line.split_once("Overall exposure level for zen@1060.service: "));
    let (_, level) = level.with_context(|| format!("no level in:\n{printed}"))?;
    let level: f32 = level.split_whitespace().next().context("a number")?.parse()?;
    let open = || printed.lines().filter(|line| line.starts_with('✗')).collect::<Vec<_>>().join("\n");
    ensure!(level <= MOST_EXPOSED, "exposure {level}:\n{}", open());
    trial::note(format!("systemd-analyze security: exposure {level} of 10"));
    Ok(())
}

/// The filter refuses two things that a user may do and a server does not need: changing its priority, and netlink.
fn the_filter_bites() -> Result<()> {
    let ip = tool("ip")?.display().to_string();
    let confined = wrapper()?;
    // As in the unit, env(1) executes the command.
    let printed = |wrapper: &[String], command: &[&str]| succeeds(Command::new("env").args(wrapper).args(command));
    let nice = ["nice", "-n", "5", "nice"];
    ensure!(printed(&[], &nice)? == "5\n", "nice does not work on this machine: nothing is tested");
    let refused = printed(&confined, &nice)?;
    ensure!(refused.starts_with("0\n") && refused.contains("not permitted"), "setpriority(2) is allowed: {refused}");
    printed(&[], &[&ip, "link"])?;
    ensure!(printed(&confined, &[&ip, "link"]).is_err(), "a socket of AF_NETLINK is allowed");
    Ok(())
}

/// A confined server passes `check`, serves metrics, and replaces its workers.
fn serves(entry: &'static Entry) -> Result<()> {
    let wrapper = wrapper()?;
    served(entry, &wrapper.each_ref().map(String::as_str), &["--metrics", "0"], false, |ctx| {
        expect_conformant(ctx.server.address())?;
        ensure!(scrape(&ctx.server)?.contains_key("process_open_fds"), "the metrics of its processes are missing");
        if entry.processes > 1 { replaces_a_worker(ctx) } else { Ok(()) }
    })
}

fn replaces_a_worker(ctx: &Ctx) -> Result<()> {
    let before = ctx.server.workers();
    process::signal(before[0], Signal::KILL)?;
    ctx.server.replaces_first(&before, WAIT_LIMIT)
}

/// A confined server can reset its clients when --grace is over, which needs a rarely used system call.
fn resets(entry: &'static Entry) -> Result<()> {
    let wrapper = wrapper()?;
    ended(entry, &wrapper.each_ref().map(String::as_str), &["--delay", "1h", "--grace", "300ms"], |ctx| {
        let mut client = ctx.server.asking_client()?;
        // A client in the backlog would be reset by the close of the listener.
        let accepted =
            wait_for(WAIT_LIMIT, || process::accepted_socket(ctx.server.address(), client.stream().local_addr().ok()?));
        accepted.context("the client is not accepted")?;
        ctx.server.signal(Signal::TERM)?;
        client.expect_reset()?;
        ctx.server.ends_well()
    })
}

/// A server that sees only itself and its workers in /proc still reports the metrics of these processes.
fn sees_no_other(entry: &'static Entry) -> Result<()> {
    ensure!(getuid().is_root(), Missing("root, which mounting /proc needs,".to_owned()));
    let unit = Unit::of(PORT)?;
    let of_unit =
        |key: &str| unit.all(key).last().map(str::to_owned).with_context(|| format!("the unit has no {key}="));
    let options = format!("subset={},hidepid={}", of_unit("ProcSubset")?, of_unit("ProtectProc")?);
    let mount = format!("mount -t proc -o {options} proc /proc && exec \"$@\"");
    let begun = since_1970()?;
    ended(entry, &["unshare", "--mount", "sh", "-c", &mount, "sh"], &["--metrics", "0"], |ctx| {
        expect_conformant(ctx.server.address())?;
        let metrics = scrape(&ctx.server)?;
        // The kernel counts in hundredths.
        let start = metrics["process_start_time_seconds"];
        let range = begun - 1.0..=since_1970()? + 1.0;
        ensure!(range.contains(&start), "the start time is {start}, expected {begun} or later");
        ensure!(metrics["process_open_fds"] > 3.0 && metrics["process_resident_memory_bytes"] > 1e5, "{metrics:?}");
        ctx.server.stop(WAIT_LIMIT)
    })
}

fn since_1970() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// Returns the program that a command runs under to be confined.
fn wrapper() -> Result<[String; 3]> {
    // The filter needs its list of the sets of system calls.
    tool("systemd-analyze")?;
    let xtask = std::env::current_exe()?.to_str().context("a path that is text")?.to_owned();
    Ok([xtask, "deploy".to_owned(), "confined".to_owned()])
}

/// Any port.
const PORT: u16 = 1060;

const MOST_EXPOSED: f32 = 1.5;

//! least privilege: what the unit leaves a server is little, and enough.

mod filter;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Signal, getuid, set_child_subreaper};

use super::fixture::{every, kill, on_each, part, succeeds};
use super::unit::Unit;
use crate::harness::client::APHORISMS;
use crate::harness::folder::Folder;
use crate::harness::metrics::scrape;
use crate::harness::verdict::{Ctx, ended, served};
use crate::harness::{Missing, WAIT_LIMIT, is_conformant, process, tool, wait_for};
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

/// Becomes a command, under the unit's filter of system calls
#[derive(clap::Args)]
#[command(hide = true)]
pub(super) struct Confined {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

pub(super) fn confined(flags: &Confined) -> Result<ExitCode> {
    let (program, arguments) = flags.command.split_first().context("clap wants a command")?;
    // What the command leaves behind is for whoever started us.
    set_child_subreaper(None)?;
    filter::install(&Unit::of(PORT)?)?;
    let error = Command::new(program).args(arguments).exec();
    bail!("cannot become {}: {error}", program.display())
}

/// systemd's own judgement, without installing anything: 0 is locked up, 10 may do everything.
fn exposure() -> Result<()> {
    let folder = Folder::new()?;
    let unit = folder.write("zen@1060.service", &part("zen@.service")?)?;
    let mut command = Command::new(tool("systemd-analyze")?);
    command.args(["security", "--offline=true", "--no-pager"]).arg(unit);
    let said = succeeds(&mut command)?;
    let level = said.lines().find_map(|line| line.split_once("Overall exposure level for zen@1060.service: "));
    let (_, level) = level.with_context(|| format!("no level in:\n{said}"))?;
    let level: f32 = level.split_whitespace().next().context("a number")?.parse()?;
    let open = || said.lines().filter(|line| line.starts_with('✗')).collect::<Vec<_>>().join("\n");
    ensure!(level <= MOST_EXPOSED, "exposure {level}:\n{}", open());
    trial::note(format!("systemd-analyze security: exposure {level} of 10"));
    Ok(())
}

/// What an ordinary user may do, and a server need not: to be nicer, and to ask the kernel about its network.
fn the_filter_bites() -> Result<()> {
    let ip = tool("ip")?.display().to_string();
    let confined = wrapper()?;
    // As in the unit, env(1) starts it.
    let said = |wrapper: &[String], command: &[&str]| succeeds(Command::new("env").args(wrapper).args(command));
    let nice = ["nice", "-n", "5", "nice"];
    ensure!(said(&[], &nice)? == "5\n", "nobody can be nice here: nothing is tested");
    let refused = said(&confined, &nice)?;
    ensure!(
        refused.starts_with("0\n") && refused.contains("not permitted"),
        "setpriority(2) is let through: {refused}"
    );
    said(&[], &[&ip, "link"])?;
    ensure!(said(&confined, &[&ip, "link"]).is_err(), "a socket of AF_NETLINK is let through");
    Ok(())
}

/// All that the judge asks for, with metrics, and with workers that are replaced.
fn serves(entry: &'static Entry) -> Result<()> {
    let wrapper = wrapper()?;
    served(entry, &wrapper.each_ref().map(String::as_str), &["--metrics", "0"], false, |ctx| {
        is_conformant(ctx.server.address())?;
        ensure!(scrape(&ctx.server)?.contains_key("process_open_fds"), "it cannot look at its own processes");
        if entry.processes > 1 { replaces_a_worker(ctx) } else { Ok(()) }
    })
}

fn replaces_a_worker(ctx: &Ctx) -> Result<()> {
    let before = ctx.server.workers();
    kill(before[0], Signal::KILL)?;
    let is_replaced = |now: &[i32]| now.len() == before.len() && !now.contains(&before[0]);
    wait_for(WAIT_LIMIT, || is_replaced(&ctx.server.workers()).then_some(())).context("the worker is not replaced")
}

/// When --grace is over, whoever is still there is reset: that takes a call which few programs need.
fn resets(entry: &'static Entry) -> Result<()> {
    let wrapper = wrapper()?;
    ended(entry, &wrapper.each_ref().map(String::as_str), &["--delay", "1h", "--grace", "300ms"], |ctx| {
        let mut client = ctx.client()?;
        client.send(APHORISMS[0].0)?;
        // Were it not accepted yet, the end of the listener would reset it, too.
        let accepted =
            wait_for(WAIT_LIMIT, || process::accepted_socket(ctx.server.address(), client.stream().local_addr().ok()?));
        accepted.context("the client is not accepted")?;
        ctx.server.signal(Signal::TERM)?;
        client.expect_reset()?;
        let status = ctx.server.ended_within(WAIT_LIMIT).context("it does not end")?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    })
}

/// Of /proc it sees itself and its workers, and can still tell what they use.
fn sees_no_other(entry: &'static Entry) -> Result<()> {
    ensure!(getuid().is_root(), Missing("root, who alone may mount a /proc of another kind,".to_owned()));
    let unit = Unit::of(PORT)?;
    let of_unit =
        |key: &str| unit.all(key).last().map(str::to_owned).with_context(|| format!("the unit has no {key}="));
    let options = format!("subset={},hidepid={}", of_unit("ProcSubset")?, of_unit("ProtectProc")?);
    let mount = format!("mount -t proc -o {options} proc /proc && exec \"$@\"");
    let begun = since_1970()?;
    ended(entry, &["unshare", "--mount", "sh", "-c", &mount, "sh"], &["--metrics", "0"], |ctx| {
        is_conformant(ctx.server.address())?;
        let told = scrape(&ctx.server)?;
        // The kernel counts in hundredths.
        let start = told["process_start_time_seconds"];
        ensure!((begun - 1.0..=since_1970()? + 1.0).contains(&start), "it began at {start}, not after {begun}");
        ensure!(told["process_open_fds"] > 3.0 && told["process_resident_memory_bytes"] > 1e5, "{told:?}");
        ctx.server.stop(WAIT_LIMIT)
    })
}

fn since_1970() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// What a command runs under, to be confined.
fn wrapper() -> Result<[String; 3]> {
    // For want of this nothing can be confined.
    tool("systemd-analyze")?;
    let xtask = std::env::current_exe()?.to_str().context("a path that is text")?.to_owned();
    Ok([xtask, "deploy".to_owned(), "confined".to_owned()])
}

/// Any will do.
const PORT: u16 = 1060;

const MOST_EXPOSED: f32 = 1.5;

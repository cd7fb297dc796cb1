//! least privilege: what the unit leaves a server is little, and enough.

mod filter;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Signal, set_child_subreaper};

use super::apparatus::{Folder, every, is_conformant, kill, on_each, part, succeeds};
use super::metrics::scrape;
use super::unit::Unit;
use crate::harness::client::{APHORISMS, Client};
use crate::harness::{PATIENCE, tool, wait_for};
use crate::matrix::{Ctx, ended, served};
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
    let nice = |wrapper: &[OsString]| succeeds(under(wrapper)?.args(["nice", "-n", "5", "nice"]));
    let filtered = wrapper()?;
    ensure!(nice(&[])?.ends_with("5\n"), "nobody can be nice here: nothing is tested");
    let refused = nice(&filtered)?;
    ensure!(
        refused.contains("not permitted") && refused.starts_with("0\n"),
        "setpriority(2) is let through: {refused}"
    );
    let link = |wrapper: &[OsString]| -> Result<String> { succeeds(under(wrapper)?.arg(tool("ip")?).args(["link"])) };
    link(&[])?;
    ensure!(link(&filtered).is_err(), "a socket of AF_NETLINK is let through");
    Ok(())
}

/// All that the judge asks for, with metrics, and with workers that are replaced.
fn serves(entry: &'static Entry) -> Result<()> {
    let wrapper = words(&wrapper()?);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    served(entry, &wrapper, &["--metrics", "0"], false, |ctx| {
        is_conformant(ctx.server.address())?;
        ensure!(scrape(&ctx.server)?.contains_key("process_open_fds"), "it cannot look at its own processes");
        if entry.processes > 1 { replaces_a_worker(ctx) } else { Ok(()) }
    })
}

fn replaces_a_worker(ctx: &Ctx) -> Result<()> {
    let before = ctx.server.workers();
    kill(before[0], Signal::KILL)?;
    let is_replaced = |now: &[i32]| now.len() == before.len() && !now.contains(&before[0]);
    wait_for(PATIENCE, || is_replaced(&ctx.server.workers()).then_some(())).context("the worker is not replaced")
}

/// When --grace is over, whoever is still there is reset: that takes a call which few programs need.
fn resets(entry: &'static Entry) -> Result<()> {
    let wrapper = words(&wrapper()?);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    ended(entry, &wrapper, &["--delay", "1h", "--grace", "300ms"], |ctx| {
        let mut client: Client = ctx.client()?;
        client.send(APHORISMS[0].0)?;
        // Were it not accepted yet, the end of the listener would reset it, too.
        let accepted = wait_for(PATIENCE, || {
            crate::harness::process::accepted_socket(ctx.server.address(), client.stream().local_addr().ok()?)
        });
        accepted.context("the client is not accepted")?;
        ctx.server.signal(Signal::TERM)?;
        client.expect_reset()?;
        let status = ctx.server.ended_within(PATIENCE).context("it does not end")?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    })
}

/// What a command runs under, to be confined.
fn wrapper() -> Result<[OsString; 3]> {
    // For want of this nothing can be confined.
    tool("systemd-analyze")?;
    Ok([std::env::current_exe()?.into(), "deploy".into(), "confined".into()])
}

fn under(wrapper: &[OsString]) -> Result<Command> {
    let mut words = wrapper.iter();
    let mut command = Command::new(words.next().map_or("env".into(), Clone::clone));
    command.args(words);
    Ok(command)
}

fn words(wrapper: &[OsString]) -> Vec<String> {
    wrapper.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Any will do.
const PORT: u16 = 1060;

const MOST_EXPOSED: f32 = 1.5;

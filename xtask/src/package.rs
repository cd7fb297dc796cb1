//! `cargo xtask package`: what a release publishes, tried before it is published. It takes some minutes.
//!
//! 1. Every published crate is packaged and built from its package alone, without a warning.
//! 2. Each program is installed from the checkout, and again from its package, and says which version it is.
//! 3. What was installed serves, and is judged.
//!
//! The tests beside this (`package/trials.rs`) are what of it fits into `test-all`.

mod trials;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::capture::Capture;
use crate::harness::folder::Folder;
use crate::harness::group::{Group, run_within};
use crate::harness::{WAIT_LIMIT, git, tool};
use crate::workspace::{self, Package};
pub(crate) use trials::trials;

/// Packages, builds and installs what a release publishes
#[derive(clap::Args)]
pub(crate) struct Flags {}

pub(crate) fn run(_: &Flags) -> Result<ExitCode> {
    let mut package = workspace::cargo();
    package.args(["package", "--workspace", "--exclude", "xtask"]).stderr(Stdio::piped());
    let output = package.output().context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && !said.contains("warning"), "cargo package says\n{said}");
    say("packaged and built from the packages");

    let folder = workspace::target()?.join("package");
    let unpacked = Folder::new()?; // outside the workspace, or cargo takes it for a forgotten member
    for package in published()? {
        let archive = folder.join(format!("{}-{}.crate", package.name, package.version));
        succeed(Command::new(tool("tar")?).arg("-xzf").arg(archive).arg("-C").arg(unpacked.path()))?;
    }
    let version = version_here()?;
    let protocol = unpacked.path().join(format!("zen-proto-{}", env!("CARGO_PKG_VERSION")));
    let patch = format!("patch.crates-io.zen-proto.path='{}'", protocol.display());
    for package in published()?.filter(|package| package.has_program()) {
        let from_package = unpacked.path().join(format!("{}-{}", package.name, package.version));
        // Until it is published the protocol is not where the package looks for it.
        for (from, options) in [(package.folder(), &["--locked"][..]), (&from_package, &["--config", &patch])] {
            let root = Folder::for_programs()?;
            let mut install = workspace::cargo();
            install.args(["install", "--quiet", "--no-track", "--path"]).arg(from).args(options);
            install.arg("--root").arg(root.path()).env("CARGO_TARGET_DIR", workspace::target()?);
            succeed(&mut install)?;
            let program = root.path().join("bin").join(&package.name);
            names_itself(&program, &package.name, &version)?;
            if package.name != "zen-client" {
                serves(&program)?;
            }
            say(&format!("installed from {}: {} {version}", from.display(), package.name));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What crates.io is to have.
fn published() -> Result<impl Iterator<Item = &'static Package>> {
    Ok(workspace::metadata()?.packages.iter().filter(|package| package.is_published()))
}

/// Whether `--version` says this, and nothing else.
fn names_itself(program: &Path, name: &str, version: &str) -> Result<()> {
    let output = run_within(WAIT_LIMIT, Command::new(program).arg("--version"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said == format!("{name} {version}\n"), "{} says {said:?}, and not {version}", program.display());
    Ok(())
}

/// The installed server, judged by the client of the checkout.
fn serves(program: &Path) -> Result<()> {
    let mut server =
        Group::start(Command::new(program).args(["-q", "-p", "0"]).stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let stdout = Capture::of(server.child().stdout.take().context("it is piped")?)?;
    let ready = |said: &[u8]| Some(std::str::from_utf8(said).ok()?.strip_suffix('\n')?.rsplit(':').next()?.to_owned());
    let port = stdout.wait_for(WAIT_LIMIT, ready).context("it does not say where it listens")?;
    let mut check = workspace::cargo();
    check.args(["run", "--quiet", "-p", "zen-client", "--", "check", "--quick", "-p", &port]);
    succeed(&mut check)
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = run_within(LONGEST_BUILD, command)?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What `--version` says of what is built from here: where git names no commit, neither does it.
fn version_here() -> Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    if !workspace::root()?.join(".git").exists() {
        return Ok(version.to_owned());
    }
    let output = run_within(WAIT_LIMIT, git()?.args(["rev-parse", "HEAD"]))?;
    let commit = String::from_utf8_lossy(&output.stdout);
    let commit = commit.get(..7).filter(|_| output.status.success());
    Ok(commit.map_or(version.to_owned(), |commit| format!("{version} ({commit})")))
}

fn say(what: &str) {
    println!("{what}");
}

const LONGEST_BUILD: Duration = Duration::from_secs(900);

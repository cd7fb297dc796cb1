//! `cargo xtask package`: tries what a release publishes before it is published. It takes some minutes.
//!
//! 1. Every published crate is packaged and built from its package alone, without a warning.
//! 2. Each program is installed from the checkout, then from its package; each time `--version` is compared.
//! 3. Each installed server serves, and passes `zen-client check`.
//!
//! The tests in `package/trials.rs` are the part that is quick enough for `test-all`.

mod trials;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::folder::Folder;
use crate::harness::group::run_within;
use crate::harness::{Server, WAIT_LIMIT, expect_conformant, git, tool};
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
    ensure!(output.status.success() && !said.contains("warning"), "cargo package warns or fails:\n{said}");
    println!("packaged and built from the packages");

    let folder = workspace::target()?.join("package");
    let unpacked = Folder::new()?; // outside the workspace, where cargo would expect it to be a member
    for package in published()? {
        let archive = folder.join(format!("{}-{}.crate", package.name, package.version));
        succeed(Command::new(tool("tar")?).arg("-xzf").arg(archive).arg("-C").arg(unpacked.path()))?;
    }
    workspace::build()?; // zen-client checks the installed servers
    let version = version_here()?;
    let protocol = unpacked.path().join(format!("zen-proto-{}", env!("CARGO_PKG_VERSION")));
    let patch = format!("patch.crates-io.zen-proto.path='{}'", protocol.display());
    for package in published()?.filter(|package| package.has_program()) {
        let from_package = unpacked.path().join(format!("{}-{}", package.name, package.version));
        // Until zen-proto is published, cargo does not find it where the package refers to it.
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
            println!("installed from {}: {} {version}", from.display(), package.name);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the packages that are published on crates.io.
fn published() -> Result<impl Iterator<Item = &'static Package>> {
    Ok(workspace::metadata()?.packages.iter().filter(|package| package.is_published()))
}

/// Fails unless `--version` prints exactly this version.
fn names_itself(program: &Path, name: &str, version: &str) -> Result<()> {
    let output = run_within(WAIT_LIMIT, Command::new(program).arg("--version"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said == format!("{name} {version}\n"), "{} says {said:?}, and not {version}", program.display());
    Ok(())
}

/// Starts the installed server, and checks it with the client of the checkout.
fn serves(program: &Path) -> Result<()> {
    let server = Server::run(Command::new(program).args(["-q", "-p", "0"]))?;
    expect_conformant(server.address())
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = run_within(LONGEST_BUILD, command)?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Returns the version that a program built from this checkout prints: with the commit, if git knows one.
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

const LONGEST_BUILD: Duration = Duration::from_secs(900);

//! Rules for the manifests: dependencies, versions, lints, advisories.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::none;
use crate::servers::SERVERS;
use crate::workspace::{self, Dependency, Package};

/// The libraries that every server may use in addition to zen-proto.
const HELPERS: [&str; 5] = ["anyhow", "clap", "log", "slab", "zen-proto"];

/// The libraries that only one server may use: its runtime.
const RUNTIMES: [(&str, &[&str]); 2] =
    [("zen-poll", &["polling"]), ("zen-async", &["async-std", "smol", "async-global-executor"])];

pub(super) fn dependencies_are_those_allowed() -> Result<()> {
    let mut wrong = Vec::new();
    for package in &workspace::metadata()?.packages {
        for dependency in &package.dependencies {
            if let Some(why) = objection(package, dependency) {
                wrong.push(format!("{} → {}: {why}", package.name, dependency.name));
            }
        }
    }
    none(wrong, "dependencies that are not allowed")
}

fn objection(package: &Package, dependency: &Dependency) -> Option<&'static str> {
    let name = dependency.name.as_str();
    let is_server = SERVERS.iter().any(|server| server.package == package.name);
    let is_ours = workspace::metadata().ok()?.packages.iter().any(|ours| ours.name == name);
    if is_ours && name != "zen-proto" {
        return Some("of the workspace only zen-proto may be linked");
    }
    // xtask makes the manual pages from the servers' options, which are in the feature `server`.
    let may_read_options = is_server || package.name == "xtask";
    if is_ours && !may_read_options && dependency.features.iter().any(|feature| feature == "server") {
        return Some("the feature `server` is for servers");
    }
    let of_runtime = RUNTIMES.iter().any(|(server, runtime)| *server == package.name && runtime.contains(&name));
    let is_shipped = dependency.kind.as_deref() != Some("dev");
    (is_server && is_shipped && !HELPERS.contains(&name) && !of_runtime)
        .then_some("neither its runtime nor an agreed helper")
}

pub(super) fn protocol_needs_at_most_memchr() -> Result<()> {
    let mut tree = workspace::cargo();
    let output = tree.args(["tree", "-p", "zen-proto", "-e", "normal", "--prefix", "none"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout)?;
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    none(
        names.filter(|name| !["zen-proto", "memchr"].contains(name)).map(str::to_owned).collect(),
        "dependencies of the protocol half other than memchr",
    )
}

pub(super) fn versions_stand_in_the_root_only() -> Result<()> {
    let mut own = Vec::new();
    for (name, manifest) in manifests()? {
        let mut is_in_dependencies = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                is_in_dependencies = line.contains("dependencies");
            } else if is_in_dependencies
                && line.starts_with(|c: char| c.is_ascii_lowercase())
                && !line.contains("workspace = true")
            {
                own.push(format!("{name}: {line}"));
            }
        }
    }
    none(own, "versions outside [workspace.dependencies]")
}

pub(super) fn lints_are_the_workspaces() -> Result<()> {
    let without = manifests()?.into_iter().filter(|(_, manifest)| !manifest.contains("[lints]\nworkspace = true\n"));
    none(without.map(|(name, _)| name.to_owned()).collect(), "crates without the workspace's lints")
}

/// Fails unless deny.toml excepts one advisory, with its reason: RUSTSEC-2025-0052, async-std is discontinued.
pub(super) fn one_advisory_is_excepted() -> Result<()> {
    let deny = fs::read_to_string(workspace::root()?.join("deny.toml")).context("deny.toml")?;
    let stated = deny.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let excepted: Vec<&str> = stated.filter(|line| line.contains("RUSTSEC-")).collect();
    let is_one = matches!(excepted[..], [line] if line.contains("RUSTSEC-2025-0052") && line.contains("reason"));
    ensure!(is_one, "deny.toml should except RUSTSEC-2025-0052 alone, with a reason; it excepts {excepted:?}");
    Ok(())
}

fn manifests() -> Result<Vec<(&'static str, String)>> {
    let packages = workspace::metadata()?.packages.iter();
    packages.map(|package| Ok((package.name.as_str(), fs::read_to_string(&package.manifest_path)?))).collect()
}

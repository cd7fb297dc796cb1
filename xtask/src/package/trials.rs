//! What a release rests on, as far as it can be told in a moment.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Folder, head, names_itself, published, succeed};
use crate::harness::group::run_within;
use crate::harness::{PATIENCE, tool};
use crate::trial::Trial;
use crate::workspace::{self, Package};

pub(crate) fn trials() -> Result<Vec<Trial>> {
    workspace::build()?;
    let mut trials = vec![
        Trial::new("package::the_commit_is_found", the_commit_is_found),
        Trial::new("package::programs_name_the_commit", programs_name_the_commit),
        Trial::new("package::all_have_one_version", all_have_one_version),
    ];
    for package in published()? {
        trials.push(Trial::new(format!("package::{}::is_described", package.name), || is_described(package)));
        trials.push(Trial::new(format!("package::{}::holds_what_it_should", package.name), || {
            holds_what_it_should(package)
        }));
    }
    Ok(trials)
}

/// The build script of zen-proto, in every place from which one builds.
fn the_commit_is_found() -> Result<()> {
    let folder = Folder::new("commit")?;
    let script = folder.0.join("build-script");
    let source = workspace::root()?.join("zen-proto/build.rs");
    succeed(Command::new("rustc").args(["--edition", "2024", "-o"]).arg(&script).arg(source))?;
    let found = |package: &Path| -> Result<String> {
        fs::create_dir_all(package)?;
        let mut command = Command::new(&script);
        let output = run_within(
            PATIENCE,
            command.env("CARGO_PKG_VERSION", "1.2.3").env("CARGO_MANIFEST_DIR", package).current_dir(&folder.0),
        )?;
        let said = String::from_utf8(output.stdout)?;
        // What is not there would be looked for, and built again, each time.
        let mut watched = said.lines().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed="));
        let lacking = watched.find(|path| *path != "build.rs" && !Path::new(path).exists());
        ensure!(lacking.is_none(), "{lacking:?} is watched, and not there");
        let version = said.lines().find_map(|line| line.strip_prefix("cargo::rustc-env=ZEN_VERSION="));
        Ok(version.with_context(|| said.clone())?.to_owned())
    };

    ensure!(found(&folder.0.join("nowhere/zen-proto"))? == "1.2.3", "a commit out of nothing");

    let package = folder.0.join("package/zen-proto");
    fs::create_dir_all(&package)?;
    let info = r#"{"git": {"sha1": "0123456789abcdef0123456789abcdef01234567"}, "path_in_vcs": "zen-proto"}"#;
    fs::write(package.join(".cargo_vcs_info.json"), info)?;
    ensure!(found(&package)? == "1.2.3 (0123456)", "in a package: {}", found(&package)?);

    let checkout = folder.0.join("checkout");
    fs::create_dir_all(&checkout)?;
    let git = |arguments: &str| -> Result<String> {
        let mut git = Command::new(tool("git")?);
        git.args(["-c", "user.name=zen", "-c", "user.email=zen@localhost", "-C"]).arg(&checkout);
        let output = run_within(PATIENCE, git.args(arguments.split(' ')).env("GIT_CONFIG_GLOBAL", "/dev/null"))?;
        ensure!(output.status.success(), "git {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let expected = || git("rev-parse HEAD").map(|commit| format!("1.2.3 ({})", &commit[..7]));
    git("init --quiet --initial-branch a/branch")?;
    ensure!(found(&checkout.join("zen-proto"))? == "1.2.3", "before the first commit");
    git("commit --quiet --allow-empty -m one")?;
    let first = expected()?;
    ensure!(found(&checkout.join("zen-proto"))? == first, "on a branch");
    git("worktree add --quiet -b other ../worktree")?;
    git("commit --quiet --allow-empty -m two")?;
    ensure!(expected()? != first && found(&checkout.join("zen-proto"))? == expected()?, "after another commit");
    ensure!(found(&folder.0.join("worktree/zen-proto"))? == first, "in a worktree");
    git("pack-refs --all")?;
    ensure!(found(&checkout.join("zen-proto"))? == expected()?, "on a packed branch");
    ensure!(found(&folder.0.join("worktree/zen-proto"))? == first, "in a worktree, on a packed branch");
    git("checkout --quiet --detach")?;
    ensure!(found(&checkout.join("zen-proto"))? == expected()?, "on no branch");
    ensure!(found(&checkout.join("vendor/zen-proto"))? == "1.2.3", "somebody else's commit");
    Ok(())
}

fn programs_name_the_commit() -> Result<()> {
    let version = format!("{} ({})", env!("CARGO_PKG_VERSION"), head()?);
    for package in published()?.filter(|package| package.has_program()) {
        names_itself(&workspace::binary(&package.name)?, &package.name, &version)?;
    }
    names_itself(&std::env::current_exe()?, "cargo xtask", &version)
}

/// `--version` tells zen-proto's: so theirs must be the same, and they must be built with no other.
fn all_have_one_version() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    for package in &workspace::metadata()?.packages {
        ensure!(package.version == version, "{} is {}, and not {version}", package.name, package.version);
        for dependency in package.dependencies.iter().filter(|dependency| dependency.name == "zen-proto") {
            ensure!(dependency.req == format!("={version}"), "{} takes zen-proto {}", package.name, dependency.req);
        }
    }
    Ok(())
}

/// What crates.io shows, or refuses to do without.
fn is_described(package: &Package) -> Result<()> {
    let has_words = |words: &[String]| !words.is_empty() && words.len() <= 5;
    ensure!(package.description.is_some() && package.license.is_some(), "no description, or no licence");
    ensure!(package.readme.as_deref() == Some("README.md"), "its readme is {:?}", package.readme);
    let documentation = format!("https://docs.rs/{}", package.name);
    ensure!(package.documentation == Some(documentation), "its documentation is at {:?}", package.documentation);
    ensure!(has_words(&package.keywords) && has_words(&package.categories), "keywords and categories: one to five");
    Ok(())
}

/// Its sources, its licences and its READMEs, and nothing that lies about.
fn holds_what_it_should(package: &Package) -> Result<()> {
    let mut cargo = workspace::cargo();
    let output = cargo.args(["package", "--list", "--allow-dirty", "-p", &package.name]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout)?;
    for file in ["Cargo.toml", "Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "README.zh-CN.md"] {
        ensure!(list.lines().any(|line| line == file), "it lacks {file}");
    }
    let beside = ["build.rs", "Cargo.toml.orig", ".cargo_vcs_info.json"];
    let is_known = |line: &str| {
        let is_source = ["src/", "tests/", "examples/"].iter().any(|folder| line.starts_with(folder));
        is_source
            || beside.contains(&line)
            || line.starts_with("Cargo.")
            || line.starts_with("LICENSE-")
            || line.starts_with("README.")
    };
    let strange: Vec<&str> = list.lines().filter(|line| !is_known(line)).collect();
    ensure!(strange.is_empty(), "it would publish {strange:?}");
    Ok(())
}

//! The conditions of a release that are quick to test.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{names_itself, published, succeed, version_here};
use crate::harness::folder::Folder;
use crate::harness::group::run_within;
use crate::harness::{Missing, WAIT_LIMIT, tool};
use crate::trial::Trial;
use crate::workspace::{self, Package};

pub(crate) fn trials() -> Result<Vec<Trial>> {
    workspace::build()?;
    let mut trials = vec![
        Trial::new("package::the_commit_is_found::in_a_package", in_a_package),
        Trial::new("package::the_commit_is_found::in_a_checkout", || in_a_checkout("files")),
        Trial::new("package::the_commit_is_found::in_a_reftable", || in_a_checkout("reftable")),
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

/// The build script of zen-proto, which must work wherever the crate is built.
struct Script(Folder);

/// What the script found, and the files whose change makes cargo run it again.
struct Found {
    version: String,
    watched: Vec<PathBuf>,
}

impl Script {
    fn build() -> Result<Script> {
        let folder = Folder::for_programs()?;
        let source = workspace::root()?.join("zen-proto/build.rs");
        succeed(Command::new("rustc").args(["--edition", "2024", "-o"]).arg(folder.path().join("script")).arg(source))?;
        Ok(Script(folder))
    }

    /// Runs the script for a package in this folder.
    fn run(&self, package: &Path) -> Result<Found> {
        self.run_with(package, |_| {})
    }

    fn run_with(&self, package: &Path, change: impl FnOnce(&mut Command)) -> Result<Found> {
        fs::create_dir_all(package)?;
        let mut command = Command::new(self.0.path().join("script"));
        command.env("CARGO_PKG_VERSION", "1.2.3").env("CARGO_MANIFEST_DIR", package).current_dir(self.0.path());
        // Pretends that another user owns the checkout: git then refuses to read the repository.
        change(command.env("GIT_TEST_ASSUME_DIFFERENT_OWNER", "true"));
        let said = String::from_utf8(run_within(WAIT_LIMIT, &mut command)?.stdout)?;
        let watched = said.lines().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed="));
        let watched: Vec<PathBuf> = watched.filter(|path| *path != "build.rs").map(PathBuf::from).collect();
        // Cargo would run the script again each time for a file that does not exist.
        let lacking = watched.iter().find(|path| !path.exists());
        ensure!(lacking.is_none(), "{lacking:?} is watched, but does not exist");
        let version = said.lines().find_map(|line| line.strip_prefix("cargo::rustc-env=ZEN_VERSION="));
        Ok(Found { version: version.with_context(|| said.clone())?.to_owned(), watched })
    }
}

impl Found {
    /// Fails unless the script found this version, and a watched file changes when `done` is called.
    fn expect_rerun<T>(&self, expected: &str, done: impl FnOnce() -> Result<T>) -> Result<T> {
        ensure!(self.version == expected, "the script finds {}, expected {expected}", self.version);
        // Of a folder, cargo watches everything in it.
        fn state(path: &Path) -> Vec<(PathBuf, u64, i64, i64)> {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let below = entries.flat_map(|entry| state(&entry.path()));
            let own = fs::metadata(path).map(|it| (path.to_owned(), it.ino(), it.mtime(), it.mtime_nsec()));
            own.into_iter().chain(below).collect()
        }
        let all = || self.watched.iter().flat_map(|path| state(path)).collect::<Vec<_>>();
        let before = all();
        let result = done()?;
        ensure!(before != all(), "no watched file changed, so cargo would not run it again: {:?}", self.watched);
        Ok(result)
    }
}

fn in_a_package() -> Result<()> {
    let (script, folder) = (Script::build()?, Folder::new()?);
    let found = |package: &str| script.run(&folder.path().join(package)).map(|found| found.version);
    ensure!(found("nowhere/zen-proto")? == "1.2.3", "a commit is found where there is none");
    let package = folder.path().join("package/zen-proto");
    fs::create_dir_all(&package)?;
    let info = r#"{"git": {"sha1": "0123456789abcdef0123456789abcdef01234567"}, "path_in_vcs": "zen-proto"}"#;
    fs::write(package.join(".cargo_vcs_info.json"), info)?;
    ensure!(found("package/zen-proto")? == "1.2.3 (0123456)", "in a package: {}", found("package/zen-proto")?);
    Ok(())
}

/// Checks that the script finds the commit in every state of a branch, and that cargo runs it again after a commit.
fn in_a_checkout(format: &str) -> Result<()> {
    let git = tool("git")?;
    let folder = Folder::new()?;
    let checkout = folder.path().join("checkout");
    fs::create_dir_all(&checkout)?;
    let git = |arguments: &str| -> Result<String> {
        let mut git = Command::new(&git);
        git.args(["-c", "user.name=zen", "-c", "user.email=zen@localhost", "-C"]).arg(&checkout);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "true");
        git.env("GIT_DEFAULT_REF_FORMAT", format);
        let output = run_within(WAIT_LIMIT, git.args(arguments.split(' ')))?;
        ensure!(output.status.success(), "git {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    git("init --quiet --initial-branch a/branch")?;
    let is_reftable = checkout.join(".git/reftable").exists();
    ensure!(is_reftable == (format == "reftable"), Missing("a git that writes reftables (2.45 or later)".to_owned()));
    let script = Script::build()?;
    let found = |place: &str| script.run(&folder.path().join(place).join("zen-proto"));
    let head = || git("rev-parse HEAD").map(|commit| format!("1.2.3 ({})", &commit[..7]));
    let commit = || git("commit --quiet --allow-empty -m another");

    found("checkout")?.expect_rerun("1.2.3", commit).context("before the first commit")?;
    let first = head()?;
    found("checkout")?
        .expect_rerun(&first, || git("worktree add --quiet -b other ../worktree").and_then(|_| commit()))?;
    let second = head()?;
    ensure!(second != first, "there is no second commit");
    git("clone --quiet --no-local --depth 1 . ../shallow")?;
    ensure!(found("shallow")?.version == second, "in a shallow clone");
    let commit_there = || git("-C ../worktree commit --quiet --allow-empty -m there");
    found("worktree")?.expect_rerun(&first, commit_there).context("in a worktree")?;
    let there = git("rev-parse other").map(|commit| format!("1.2.3 ({})", &commit[..7]))?;
    git("pack-refs --all")?;
    found("worktree")?.expect_rerun(&there, commit_there).context("in a worktree, on a packed branch")?;
    found("checkout")?.expect_rerun(&second, commit).context("on a packed branch")?;
    git("pack-refs --all")?;
    // With this setting git does not create logs/HEAD again.
    git("config core.logAllRefUpdates false")?;
    let _ = fs::remove_file(checkout.join(".git/logs/HEAD"));
    found("checkout")?.expect_rerun(&head()?, commit).context("on a packed branch, without a log")?;
    found("checkout")?.expect_rerun(&head()?, commit).context("on a branch, without a log")?;
    git("checkout --quiet --detach")?;
    found("checkout")?.expect_rerun(&head()?, commit).context("on no branch")?;
    ensure!(found("checkout/vendor")?.version == "1.2.3", "the commit of another repository is found");

    let alone = script.run_with(&checkout.join("zen-proto"), |command| _ = command.env("PATH", ""))?;
    let expected = if format == "files" { head()? } else { "1.2.3".to_owned() };
    ensure!(alone.version == expected, "without git it finds {}", alone.version);
    Ok(())
}

fn programs_name_the_commit() -> Result<()> {
    let version = version_here()?;
    for package in published()?.filter(|package| package.has_program()) {
        names_itself(&workspace::binary(&package.name)?, &package.name, &version)?;
    }
    names_itself(&std::env::current_exe()?, "cargo xtask", &version)
}

/// Checks that all crates have the version of zen-proto, which `--version` prints, and depend on exactly that one.
fn all_have_one_version() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    for package in &workspace::metadata()?.packages {
        ensure!(package.version == version, "{} is {}, expected {version}", package.name, package.version);
        for dependency in package.dependencies.iter().filter(|dependency| dependency.name == "zen-proto") {
            ensure!(dependency.req == format!("={version}"), "{} takes zen-proto {}", package.name, dependency.req);
        }
    }
    Ok(())
}

/// Checks that a package has everything that crates.io shows or requires.
fn is_described(package: &Package) -> Result<()> {
    let has_words = |words: &[String]| !words.is_empty() && words.len() <= 5;
    ensure!(package.description.is_some() && package.license.is_some(), "no description, or no licence");
    ensure!(package.readme.as_deref() == Some("README.md"), "its readme is {:?}", package.readme);
    let documentation = format!("https://docs.rs/{}", package.name);
    ensure!(package.documentation == Some(documentation), "its documentation is at {:?}", package.documentation);
    ensure!(has_words(&package.keywords) && has_words(&package.categories), "keywords and categories: one to five");
    Ok(())
}

/// Checks that a package has its sources, licences and READMEs, and no other files.
fn holds_what_it_should(package: &Package) -> Result<()> {
    let mut cargo = workspace::cargo();
    let output = cargo.args(["package", "--list", "--allow-dirty", "-p", &package.name]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout)?;
    for file in ["Cargo.toml", "Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "README.zh-CN.md"] {
        ensure!(list.lines().any(|line| line == file), "it lacks {file}");
    }
    let others = ["build.rs", "Cargo.toml.orig", ".cargo_vcs_info.json"];
    let is_known = |line: &str| {
        let is_source = ["src/", "tests/", "examples/"].iter().any(|folder| line.starts_with(folder));
        is_source
            || others.contains(&line)
            || line.starts_with("Cargo.")
            || line.starts_with("LICENSE-")
            || line.starts_with("README.")
    };
    let strange: Vec<&str> = list.lines().filter(|line| !is_known(line)).collect();
    ensure!(strange.is_empty(), "it would publish {strange:?}");
    Ok(())
}

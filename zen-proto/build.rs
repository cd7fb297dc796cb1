//! Finds the commit that this crate is built from, so that `--version` can name it.
//!
//! In a package the commit is in `.cargo_vcs_info.json`. In a checkout it is in `.git`, which this script reads without
//! calling git: a container may have no git, or a git that refuses a folder of another owner. Only if the repository
//! stores its branches in the reftable format does this script call git. If there is neither file, `--version` shows no
//! commit. The crate is rebuilt when another commit is checked out. Uncommitted changes are not shown.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed=build.rs");
    let commit =
        commit_of_package(&package.join(".cargo_vcs_info.json")).or_else(|| commit_of_checkout(package.parent()?));
    let shown = commit.as_deref().and_then(|commit| commit.get(..SHORT_LENGTH));
    match shown.filter(|commit| commit.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        Some(commit) => {
            println!("cargo::rustc-env=ZEN_COMMIT={commit}");
            println!("cargo::rustc-env=ZEN_VERSION={version} ({commit})");
        }
        None => println!("cargo::rustc-env=ZEN_VERSION={version}"),
    }
}

/// `{"git": {"sha1": "…"}, …}`, which `cargo package` writes.
fn commit_of_package(info: &Path) -> Option<String> {
    let text = fs::read_to_string(info).ok()?;
    let (_, value) = text.split_once("\"sha1\"")?;
    value.split('"').nth(1).map(str::to_owned)
}

/// Returns the commit that HEAD refers to, directly or through a branch.
fn commit_of_checkout(root: &Path) -> Option<String> {
    // Only the `.git` of this workspace: one in a folder above may belong to another project.
    let git = git_folder(&root.join(".git"))?;
    // A worktree has a git folder of its own, but the branches are in that of the main worktree.
    let shared = read(&git.join("commondir")).map_or_else(|| git.clone(), |shared| git.join(shared));
    let head = read(&git.join("HEAD"))?;
    // In the reftable format, this file is replaced whenever HEAD or a branch changes.
    let tables = [&git, &shared].map(|folder| folder.join("reftable/tables.list"));
    if tables.iter().any(|list| list.exists()) {
        tables.iter().for_each(|list| watch(list));
        return commit_from_git(&git);
    }
    // git appends a line to this file whenever HEAD changes to another commit.
    let log = git.join("logs/HEAD");
    watch(&log);
    let Some(branch) = head.strip_prefix("ref: ") else { return Some(head) };
    let file = shared.join(branch);
    read(&file).or_else(|| {
        // The branch is packed. Without logs/HEAD the next commit shows only when git creates the branch's file.
        // Until then its nearest existing folder is watched, because that folder changes when the file is created.
        if !log.exists() {
            file.ancestors().find(|folder| folder.exists()).into_iter().for_each(watch);
        }
        let packed = read(&shared.join("packed-refs"))?;
        packed.lines().find_map(|line| line.strip_suffix(branch)?.strip_suffix(' ').map(str::to_owned))
    })
}

/// Returns the commit of HEAD according to git, or `None` if git cannot be run.
fn commit_from_git(folder: &Path) -> Option<String> {
    // With --git-dir, git does not check the owner of the folder (safe.directory).
    let output = Command::new("git").arg("--git-dir").arg(folder).args(["rev-parse", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the git folder: `.git` itself, or the folder that the file `.git` of a worktree names.
fn git_folder(git: &Path) -> Option<PathBuf> {
    if git.is_dir() {
        return Some(git.to_owned());
    }
    let text = fs::read_to_string(git).ok()?;
    Some(git.with_file_name(text.strip_prefix("gitdir: ")?.trim_end()))
}

/// Reads a file, and makes cargo run this script again when the file changes.
fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    watch(path);
    Some(text.trim_end().to_owned())
}

/// Makes cargo run this script again when `path` changes. Cargo considers a missing file changed at every build.
fn watch(path: &Path) {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// The number of digits in an abbreviated commit, as in git's default.
const SHORT_LENGTH: usize = 7;

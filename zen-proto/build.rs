//! Finds the commit that this is built from, so that `--version` can name it.
//!
//! A package carries it in `.cargo_vcs_info.json`; a checkout in its `.git`, which is read without git: in a container
//! there may be none, or one that distrusts the owner of the files. Only where the branches lie in a reftable is git
//! asked, since nothing else reads that format. Elsewhere there is no commit, and the version stands alone. It is built
//! again when another commit is checked out; whether files have changed since, it does not say.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed=build.rs");
    let commit = of_package(&package.join(".cargo_vcs_info.json")).or_else(|| of_checkout(package.parent()?));
    let shown = commit.as_deref().and_then(|commit| commit.get(..SHOWN));
    match shown.filter(|commit| commit.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        Some(commit) => {
            println!("cargo::rustc-env=ZEN_COMMIT={commit}");
            println!("cargo::rustc-env=ZEN_VERSION={version} ({commit})");
        }
        None => println!("cargo::rustc-env=ZEN_VERSION={version}"),
    }
}

/// `{"git": {"sha1": "…"}, …}`, which `cargo package` writes.
fn of_package(info: &Path) -> Option<String> {
    let text = fs::read_to_string(info).ok()?;
    let (_, value) = text.split_once("\"sha1\"")?;
    value.split('"').nth(1).map(str::to_owned)
}

/// What HEAD names: a commit, or a branch that names one.
fn of_checkout(root: &Path) -> Option<String> {
    // Only ours: a checkout farther up may be anybody's.
    let git = git_folder(&root.join(".git"))?;
    // What worktrees share, among it the branches, lies in the folder of the first.
    let shared = read(&git.join("commondir")).map_or_else(|| git.clone(), |shared| git.join(shared));
    let head = read(&git.join("HEAD"))?;
    // A list of tables that is replaced whenever HEAD or a branch comes to name another commit.
    let tables = [&git, &shared].map(|folder| folder.join("reftable/tables.list"));
    if tables.iter().any(|list| list.exists()) {
        tables.iter().for_each(|list| watch(list));
        return asked_of_git(&git);
    }
    // It grows whenever HEAD comes to name another commit.
    let log = git.join("logs/HEAD");
    watch(&log);
    let Some(branch) = head.strip_prefix("ref: ") else { return Some(head) };
    let file = shared.join(branch);
    read(&file).or_else(|| {
        // Without a log only the file tells of the next commit, and that appears in one of these folders.
        if !log.exists() {
            file.ancestors().find(|folder| folder.exists()).into_iter().for_each(watch);
        }
        let packed = read(&shared.join("packed-refs"))?;
        packed.lines().find_map(|line| line.strip_suffix(branch)?.strip_suffix(' ').map(str::to_owned))
    })
}

/// What git says, if there is one.
fn asked_of_git(folder: &Path) -> Option<String> {
    // A folder that is named is read, regardless of its owner.
    let output = Command::new("git").arg("--git-dir").arg(folder).args(["rev-parse", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `.git` is the folder, or in a worktree a file that says where it is.
fn git_folder(git: &Path) -> Option<PathBuf> {
    if git.is_dir() {
        return Some(git.to_owned());
    }
    let text = fs::read_to_string(git).ok()?;
    Some(git.with_file_name(text.strip_prefix("gitdir: ")?.trim_end()))
}

/// A small file, which is read again when it changes.
fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    watch(path);
    Some(text.trim_end().to_owned())
}

/// A file that is not there would count as changed each time.
fn watch(path: &Path) {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// As many digits as git shows.
const SHOWN: usize = 7;

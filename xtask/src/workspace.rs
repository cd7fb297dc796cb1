//! Paths of the checkout, its packages, and the binaries that cargo built.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::signals::command_with_ignored_signals;

/// The part of the output of `cargo metadata` that is used here.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) description: Option<String>,
    pub(crate) license: Option<String>,
    pub(crate) readme: Option<String>,
    pub(crate) documentation: Option<String>,
    pub(crate) keywords: Vec<String>,
    pub(crate) categories: Vec<String>,
    /// The registries to which it may be published; `None`: any.
    publish: Option<Vec<String>>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// The versions that are allowed.
    pub(crate) req: String,
    /// `None` for a normal dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
    pub(crate) features: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
    pub(crate) src_path: PathBuf,
}

impl Package {
    /// Returns the folder of the package.
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().expect("a manifest is in a folder")
    }

    /// Returns whether it is published.
    pub(crate) fn is_published(&self) -> bool {
        self.publish.is_none()
    }

    /// Returns whether it has a program, which can be installed.
    pub(crate) fn has_program(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "bin"))
    }
}

/// Returns the metadata of the workspace, which is read once. Cargo itself takes CARGO_TARGET_DIR into account.
pub(crate) fn metadata() -> Result<&'static Metadata> {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    if let Some(metadata) = METADATA.get() {
        return Ok(metadata);
    }
    let output =
        cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata = serde_json::from_slice(&output.stdout).context("cannot parse the output of cargo metadata")?;
    Ok(METADATA.get_or_init(|| metadata))
}

/// Returns the top folder of the checkout.
pub(crate) fn root() -> Result<&'static Path> {
    Ok(&metadata()?.workspace_root)
}

/// Returns the English pages that have a Chinese translation: the READMEs and the pages for teachers.
pub(crate) fn pages() -> Result<Vec<PathBuf>> {
    let root = root()?;
    let packages = metadata()?.packages.iter().map(|package| package.folder().to_owned());
    let folders = [root.to_owned(), root.join("xtask/deploy")].into_iter().chain(packages);
    let mut pages: Vec<_> = folders.map(|folder| folder.join("README.md")).collect();
    let entries = fs::read_dir(root.join("xtask/teach")).context("xtask/teach")?;
    let mut teach = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    teach.sort_unstable();
    pages.extend(teach.into_iter().filter(|page| !page.to_string_lossy().ends_with(CHINESE)));
    Ok(pages)
}

/// Returns the path of a page's Chinese translation.
pub(crate) fn translation(page: &Path) -> PathBuf {
    page.with_extension(CHINESE)
}

/// The end of the name of a Chinese page.
const CHINESE: &str = "zh-CN.md";

/// How a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Profile {
    Debug,
    Release,
}

/// Returns the path of the debug build of the binary `NAME`, or of the example `examples/NAME`.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    built(Profile::Debug, name)
}

/// Returns the path of a binary that this run of xtask has built. A binary of an earlier run is never used.
pub(crate) fn built(profile: Profile, name: &str) -> Result<PathBuf> {
    let built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let path = built.get(&profile).and_then(|programs| programs.get(name)).cloned();
    path.with_context(|| format!("{name} was not built: see cargo's output above"))
}

/// Returns the target folder, for files of cargo and of tasks. Binaries may be elsewhere: see [`binary`].
pub(crate) fn target() -> Result<&'static Path> {
    Ok(&metadata()?.target_directory)
}

/// Builds all binaries and examples, and returns the packages that cannot be built. One cargo command builds
/// everything; only if it fails, each package is built on its own. xtask itself is running and is not built.
pub(crate) fn build() -> Result<Vec<&'static str>> {
    let packages = metadata()?.packages.iter().map(|package| package.name.as_str());
    let packages: Vec<&str> = packages.filter(|&package| package != "xtask").collect();
    let built = build_packages(Profile::Debug, &packages)?;
    let (mut programs, mut broken) = (built.unwrap_or_default(), Vec::new());
    if programs.is_empty() {
        for package in packages {
            match build_packages(Profile::Debug, &[package])? {
                Some(of_package) => programs.extend(of_package),
                None => broken.push(package),
            }
        }
    }
    keep(Profile::Debug, programs);
    Ok(broken)
}

/// Builds these packages in release mode, with cargo's output visible.
pub(crate) fn build_release(packages: &[&str]) -> Result<()> {
    let programs = build_packages(Profile::Release, packages)?.context("the servers or the client cannot be built")?;
    keep(Profile::Release, programs);
    Ok(())
}

/// Builds the binaries and examples of these packages; `None` if they do not build.
fn build_packages(profile: Profile, packages: &[&str]) -> Result<Option<Programs>> {
    let mut cargo = cargo();
    cargo.args(["build", "--bins", "--examples"]);
    cargo.arg(if profile == Profile::Release { "--release" } else { "--quiet" });
    packages.iter().for_each(|package| _ = cargo.args(["-p", package]));
    build_with(&mut cargo)
}

/// Runs `cargo build …` and returns what it built, `None` if it failed. Only cargo knows the paths: target, folder and
/// profile can be set in the environment and in several files.
pub(crate) fn build_with(cargo: &mut Command) -> Result<Option<Programs>> {
    cargo.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let output = cargo.spawn().and_then(Child::wait_with_output).context("cannot run cargo")?;
    Ok(output.status.success().then(|| programs(&String::from_utf8_lossy(&output.stdout))))
}

/// The programs that cargo built, by name; an example's name is `examples/NAME`.
pub(crate) type Programs = BTreeMap<String, PathBuf>;

/// Returns the programs among the artifacts that cargo lists, one JSON object per line.
fn programs(messages: &str) -> Programs {
    #[derive(Deserialize)]
    struct Artifact {
        target: Target,
        executable: Option<PathBuf>,
    }
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    let named = |Artifact { target, executable }| {
        let folder = if target.kind.iter().any(|kind| kind == "example") { "examples/" } else { "" };
        Some((format!("{folder}{}", target.name), executable?))
    };
    artifacts.filter_map(named).collect()
}

/// The programs of each profile, as its last build made them.
static BUILT: Mutex<BTreeMap<Profile, Programs>> = Mutex::new(BTreeMap::new());

fn keep(profile: Profile, programs: Programs) {
    BUILT.lock().unwrap_or_else(PoisonError::into_inner).insert(profile, programs);
}

/// Returns a `cargo` command for this checkout, wherever the task was started.
pub(crate) fn cargo() -> Command {
    // CARGO_MANIFEST_DIR is set by `cargo run`; a binary that is started by hand uses the path at build time.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let mut command = command_with_ignored_signals(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(Path::new(&here).parent().expect("xtask is a folder of the checkout"));
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::folder::Folder;

    /// Uses a target and a folder of its own, with an older build where binaries usually are.
    #[test]
    fn binaries_are_found_in_any_target_folder() {
        let folder = Folder::for_programs().expect("a folder");
        let folder = folder.path();
        let write = |name: &str, text: &str| {
            let file = folder.join(name);
            fs::create_dir_all(file.parent().expect("a folder")).and_then(|()| fs::write(file, text)).expect("written");
        };
        write("Cargo.toml", "[package]\nname = \"tiny\"\nedition = \"2024\"\n[workspace]\n");
        write("src/main.rs", "fn main() { print!(\"new\") }");
        write("examples/tiny.rs", "fn main() { print!(\"example\") }");
        write("a place/debug/tiny", "an older build");
        write("target/debug/tiny", "an older build");
        let mut cargo = cargo();
        cargo.args(["build", "--quiet", "--bins", "--examples"]).current_dir(folder);
        cargo.env("CARGO_TARGET_DIR", folder.join("a place")).env("CARGO_BUILD_TARGET", "host-tuple");
        let built = build_with(&mut cargo).expect("cargo runs").expect("it builds");
        let says = |name: &str| Command::new(&built[name]).output().expect("it runs").stdout;
        assert_eq!((says("tiny"), says("examples/tiny")), (b"new".to_vec(), b"example".to_vec()));
        write("src/main.rs", "what is wrong does not build");
        assert!(build_with(cargo.stderr(Stdio::null())).expect("cargo runs").is_none());
    }
}

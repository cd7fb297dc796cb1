//! Where things are: the checkout, its packages, what cargo built of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// What `cargo metadata` says of the workspace, as far as anything here asks.
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
    /// To which registries; `None`: to any.
    publish: Option<Vec<String>>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Which versions of it.
    pub(crate) req: String,
    /// `None` for an ordinary one, else `dev` or `build`.
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
    /// The folder of the package.
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().expect("a manifest stands in a folder")
    }

    /// Whether a release has it.
    pub(crate) fn is_published(&self) -> bool {
        self.publish.is_none()
    }

    /// Whether it is one that can be installed.
    pub(crate) fn has_program(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "bin"))
    }
}

/// The workspace, asked for once. CARGO_TARGET_DIR is honoured because cargo honours it.
pub(crate) fn metadata() -> Result<&'static Metadata> {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    if let Some(metadata) = METADATA.get() {
        return Ok(metadata);
    }
    let output =
        cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata = serde_json::from_slice(&output.stdout).context("cargo metadata says something unexpected")?;
    Ok(METADATA.get_or_init(|| metadata))
}

/// The top folder of the checkout.
pub(crate) fn root() -> Result<&'static Path> {
    Ok(&metadata()?.workspace_root)
}

/// How something is built: for tests, or for speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Debug,
    Release,
}

/// The binary of this name, or `examples/NAME`, as the tests use it.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    built(Profile::Debug, name)
}

/// The same as a profile builds it.
pub(crate) fn built(profile: Profile, name: &str) -> Result<PathBuf> {
    Ok(target()?.join(if profile == Profile::Release { "release" } else { "debug" }).join(name))
}

/// Where cargo puts what it builds, and tasks what they write.
pub(crate) fn target() -> Result<&'static Path> {
    Ok(&metadata()?.target_directory)
}

/// Builds every binary that a test starts, in one go, and says which packages cannot be built. Not xtask: it runs.
pub(crate) fn build() -> Result<Vec<&'static str>> {
    let packages: Vec<&str> = metadata()?.packages.iter().map(|package| package.name.as_str()).collect();
    let packages: Vec<&str> = packages.into_iter().filter(|&package| package != "xtask").collect();
    let builds = |packages: &[&str]| {
        let mut cargo = cargo();
        cargo.args(["build", "--quiet", "--bins", "--examples"]);
        packages.iter().for_each(|package| _ = cargo.args(["-p", package]));
        cargo.status().is_ok_and(|status| status.success())
    };
    Ok(if builds(&packages) { Vec::new() } else { packages.into_iter().filter(|&one| !builds(&[one])).collect() })
}

/// Builds these packages for speed, where it can be seen.
pub(crate) fn build_release(packages: &[&str]) -> Result<()> {
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--bins", "--examples"]);
    packages.iter().for_each(|package| _ = cargo.args(["-p", package]));
    ensure!(cargo.status().context("cannot run cargo")?.success(), "what is to be measured does not build");
    Ok(())
}

/// A cargo that works on this checkout, wherever it was started.
pub(crate) fn cargo() -> Command {
    // Set by `cargo run`; the other one serves a binary that is started by hand.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(Path::new(&here).parent().expect("xtask stands in the checkout"));
    command
}

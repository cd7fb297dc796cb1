//! The environment of a measurement: machine, kernel, toolchain, versions of libraries.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::Result;
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use crate::harness::git;
use crate::workspace;

/// The machine, its kernel, and how the programs were built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) is_virtual: bool,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// Load average of the last minute at the start of the run. Other busy programs affect the figures.
    pub(crate) load_average: f64,
    pub(crate) descriptor_limit: Option<u64>,
    pub(crate) sysctls: BTreeMap<String, String>,
    /// The commit that is checked out, if known.
    pub(crate) commit: Option<String>,
    /// Whether files have been changed since that commit.
    pub(crate) is_changed: bool,
    pub(crate) toolchain: String,
    pub(crate) profile: String,
    /// Versions of the runtimes and of the libraries under them.
    pub(crate) versions: BTreeMap<String, String>,
}

impl Machine {
    pub(crate) fn here(profile: &str) -> Result<Machine> {
        let cpuinfo = read("/proc/cpuinfo");
        let kilobytes = named(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kilobytes: u64 = kilobytes.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let output_of_git = |arguments: &[&str]| output_of(git().ok()?.args(arguments));
        Ok(Machine {
            processor: processor(&cpuinfo),
            processors: available_parallelism().map_or(1, usize::from),
            is_virtual: named(&cpuinfo, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            memory_bytes: kilobytes * 1024,
            kernel: format!("Linux {} {}", line("/proc/sys/kernel/osrelease"), std::env::consts::ARCH),
            load_average: line("/proc/loadavg").split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(0.0),
            descriptor_limit: getrlimit(Resource::Nofile).maximum,
            sysctls: SYSCTLS.iter().map(|name| ((*name).to_owned(), sysctl(name))).collect(),
            // Without git, the commit that this task was built from.
            commit: output_of_git(&["rev-parse", "--short=12", "HEAD"]).or(zen_proto::COMMIT.map(str::to_owned)),
            is_changed: output_of_git(&["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty()),
            toolchain: output_of(Command::new("rustc").arg("-V").current_dir(workspace::root()?)).unwrap_or_default(),
            profile: profile.to_owned(),
            versions: versions(&read(&workspace::root()?.join("Cargo.lock").to_string_lossy())),
        })
    }

    /// Returns the machine as one line of text.
    pub(crate) fn shown(&self) -> String {
        let kind = if self.is_virtual { ", virtual" } else { "" };
        let memory = (self.memory_bytes as f64 / (1 << 30) as f64).round();
        format!("{} ({} processors{kind}), {memory} GiB, {}", self.processor, self.processors, self.kernel)
    }

    /// Returns the commit, and whether there were changes.
    pub(crate) fn commit_shown(&self) -> String {
        let commit = self.commit.as_deref().unwrap_or("unknown");
        if self.is_changed { format!("{commit} with changes") } else { commit.to_owned() }
    }
}

/// Returns the name of the processor. On x86, /proc/cpuinfo contains it. On 64-bit Arm, it contains two numbers, from
/// which lscpu(1) derives a name. Elsewhere it may contain neither.
fn processor(cpuinfo: &str) -> String {
    let arm = || {
        let (implementer, part) = (named(cpuinfo, "CPU implementer")?, named(cpuinfo, "CPU part")?);
        Some(format!("Arm, implementer {implementer}, part {part}"))
    };
    let other = || ["cpu model", "cpu", "uarch", "isa"].into_iter().find_map(|name| named(cpuinfo, name));
    let unknown = || format!("{}, not named", std::env::consts::ARCH);
    named(cpuinfo, "model name").or_else(arm).or_else(other).unwrap_or_else(unknown)
}

/// Returns the value of the first line `NAME : VALUE` that has one.
fn named(text: &str, name: &str) -> Option<String> {
    let values = text.lines().filter_map(|line| line.split_once(':')).filter(|(key, _)| key.trim() == name);
    values.map(|(_, value)| value.trim()).find(|value| !value.is_empty()).map(str::to_owned)
}

/// Reads versions from Cargo.lock: `NAME` → `1.2.3`.
fn versions(lock: &str) -> BTreeMap<String, String> {
    let quoted = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches('"').to_owned());
    let mut versions = BTreeMap::new();
    let mut name = String::new();
    for line in lock.lines() {
        if let Some(found) = quoted(line, "name = ") {
            name = found;
        } else if let Some(version) = quoted(line, "version = ").filter(|_| PACKAGES.contains(&name.as_str())) {
            versions.insert(name.clone(), version);
        }
    }
    versions
}

fn sysctl(name: &str) -> String {
    line(&format!("/proc/sys/{}", name.replace('.', "/"))).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn output_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn line(path: &str) -> String {
    read(path).lines().next().unwrap_or_default().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Settings of the kernel that limit a server with many clients, or its load.
const SYSCTLS: &[&str] = &[
    "fs.nr_open",
    "kernel.pid_max",
    "kernel.threads-max",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "vm.max_map_count",
    "vm.overcommit_memory",
];

const PACKAGES: &[&str] = &[
    "async-executor",
    "async-global-executor",
    "async-io",
    "async-std",
    "hdrhistogram",
    "polling",
    "rustix",
    "smol",
    "socket2",
    "zen-async",
    "zen-client",
    "zen-poll",
    "zen-proto",
    "zen-single",
    "zen-threaded",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_processor_has_a_name() {
        assert_eq!(processor("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Xeon @ 2.00GHz\n"), "Xeon @ 2.00GHz");
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0c\n";
        assert_eq!(processor(arm), "Arm, implementer 0x41, part 0xd0c");
        assert_eq!(processor("processor\t: 0\ncpu\t\t: POWER9\n"), "POWER9");
        for unknown in ["", "processor\t: 0\n", "model name\t: \n"] {
            assert_eq!(processor(unknown), format!("{}, not named", std::env::consts::ARCH));
        }
    }

    #[test]
    fn versions_are_read_from_the_lock_file() {
        let lock =
            "[[package]]\nname = \"smol\"\nversion = \"2.0.2\"\n\n[[package]]\nname = \"other\"\nversion = \"1.0.0\"\n";
        assert_eq!(versions(lock), BTreeMap::from([("smol".to_owned(), "2.0.2".to_owned())]));
    }
}

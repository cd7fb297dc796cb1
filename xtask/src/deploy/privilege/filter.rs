//! The system calls that a unit allows, as the seccomp filter that systemd makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::AddressFamily;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use syscalls::Sysno;

use super::super::fixture::succeeds;
use super::super::unit::Unit;
use crate::harness::tool;

/// Restricts this thread, and the program that it executes, to the system calls that the unit allows. Others fail with
/// EPERM.
pub(super) fn install(unit: &Unit) -> Result<()> {
    let refusal = unit.all("SystemCallErrorNumber").last();
    ensure!(refusal == Some("EPERM"), "the unit sets SystemCallErrorNumber={refusal:?}");
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    // A call of another architecture has no number here.
    for call in allowed(unit)?.iter().filter_map(|name| name.parse::<Sysno>().ok()) {
        rules.insert(call.id().into(), if call == Sysno::socket { families(unit)? } else { Vec::new() });
    }
    let eperm = rustix::io::Errno::PERM.raw_os_error().unsigned_abs();
    let here = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Errno(eperm), SeccompAction::Allow, here)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program).context("cannot install the filter")
}

/// Returns the names that `SystemCallFilter=` allows: those listed, except those listed later after a tilde.
fn allowed(unit: &Unit) -> Result<BTreeSet<String>> {
    let sets = Sets::known()?;
    // systemd adds this set, without which no program can start.
    let mut allowed = sets.members("@default")?;
    for value in unit.all("SystemCallFilter") {
        for word in value.trim_start_matches('~').split_whitespace() {
            let members = sets.members(word)?;
            if value.starts_with('~') {
                allowed.retain(|name| !members.contains(name));
            } else {
                allowed.extend(members);
            }
        }
    }
    ensure!(allowed.contains("execve"), "nothing can be started with {allowed:?}");
    Ok(allowed)
}

/// Returns the rules for socket(2), one for each address family that the unit allows.
fn families(unit: &Unit) -> Result<Vec<SeccompRule>> {
    let names = unit.all("RestrictAddressFamilies").flat_map(str::split_whitespace);
    let rules = names.map(|name| {
        let family = match name {
            "AF_INET" => AddressFamily::INET,
            "AF_INET6" => AddressFamily::INET6,
            "AF_UNIX" => AddressFamily::UNIX,
            _ => bail!("the test does not know the address family {name}: add it here"),
        };
        let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family.as_raw().into())?;
        Ok(SeccompRule::new(vec![is])?)
    });
    rules.collect()
}

/// systemd's sets of calls, which contain names and other sets.
struct Sets(BTreeMap<String, Vec<String>>);

impl Sets {
    fn known() -> Result<Sets> {
        Sets::parse(&succeeds(Command::new(tool("systemd-analyze")?).args(["syscall-filter", "--no-pager"]))?)
    }

    fn parse(text: &str) -> Result<Sets> {
        let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut latest = None;
        for line in text.lines() {
            match line.strip_prefix("    ") {
                Some(name) if !name.starts_with('#') => {
                    let set: &String = latest.as_ref().with_context(|| format!("{name} is in no set"))?;
                    sets.entry(set.clone()).or_default().push(name.to_owned());
                }
                // The description of the set.
                Some(_) => {}
                None if line.starts_with('@') => latest = Some(line.to_owned()),
                None => latest = None,
            }
        }
        Ok(Sets(sets))
    }

    /// Returns all names in a set, or the name itself.
    fn members(&self, word: &str) -> Result<BTreeSet<String>> {
        if !word.starts_with('@') {
            return Ok([word.to_owned()].into());
        }
        let inner = self.0.get(word).with_context(|| format!("systemd knows no set {word}"))?;
        let inner = inner.iter().map(|word| self.members(word)).collect::<Result<Vec<_>>>()?;
        Ok(inner.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_names_and_sets() {
        let text =
            "@a\n    # what it is for\n    @b\n    read\n\n@b\n    # more\n    write\n\n# Ungrouped\n#   other\n";
        let sets = Sets::parse(text).expect("it is well formed");
        let members = |word| sets.members(word).map(|names| names.into_iter().collect::<Vec<_>>()).ok();
        assert_eq!(members("@a"), Some(vec!["read".to_owned(), "write".to_owned()]));
        assert_eq!(members("kill"), Some(vec!["kill".to_owned()]));
        assert_eq!(members("@c"), None);
    }
}

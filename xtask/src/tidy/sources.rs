//! Rules for the Rust files: `unsafe`, module docs, names, length.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::none;
use super::source::{self, Source, positions};
use crate::workspace;

pub(super) fn unsafe_stands_in_one_block() -> Result<()> {
    let mut elsewhere = Vec::new();
    for source in source::all()? {
        let found = source.tokens.iter().filter(|token| *token == "unsafe").count();
        let blocks = positions(&source.tokens, &["unsafe", "{"]).count();
        if source.name() == REGISTRATION {
            ensure!(
                found == 1 && blocks == 1,
                "{REGISTRATION} should have one `unsafe` block; it has `unsafe` {found} times, {blocks} of them a block"
            );
        } else if found > blocks || found > 0 && !WRAPPERS.contains(&source.name().as_str()) {
            elsewhere.push(format!("{}: {found} times", source.name()));
        }
    }
    none(elsewhere, "`unsafe` where it is not allowed")
}

pub(super) fn crate_roots_forbid_unsafe_code() -> Result<()> {
    let (mut lacking, root) = (Vec::new(), workspace::root()?);
    for package in &workspace::metadata()?.packages {
        for target in &package.targets {
            let is_test = target.kind.iter().any(|kind| kind == "test");
            let is_poll = package.name == "zen-poll" && target.kind.iter().any(|kind| kind == "bin");
            let text = fs::read_to_string(&target.src_path)?;
            // An example may reuse the file with the block or the example `raw`, or have a wrapper of its own.
            let reuses = text.contains("registration.rs\"]") || text.contains("\nmod raw;");
            let folder = Path::new(&target.src_path).parent();
            let wraps = WRAPPERS.iter().any(|wrapper| root.join(wrapper).parent() == folder);
            if !is_test && !is_poll && !reuses && !wraps && !text.contains("#![forbid(unsafe_code)]") {
                lacking.push(format!("{} ({})", target.name, target.src_path.display()));
            }
        }
    }
    none(lacking, "crate roots that do not forbid unsafe code")
}

/// Fails if the protocol half of zen-proto (all but the module `server`) does I/O, reads a clock, sleeps or logs.
pub(super) fn protocol_does_no_io() -> Result<()> {
    const MODULES: [&str; 7] = ["env", "fs", "io", "net", "os", "process", "thread"];
    const WORDS: [&str; 8] = ["log", "sleep", "SystemTime", "dbg", "eprint", "eprintln", "print", "println"];
    let mut found = Vec::new();
    for source in source::all()? {
        let name = source.name();
        if !name.starts_with("zen-proto/src/") || name.starts_with("zen-proto/src/server") {
            continue;
        }
        let tokens = source.tokens_without_tests();
        let uses = positions(tokens, &["use", "std", "::"]);
        let imported = uses.flat_map(|at| tokens[at..].iter().take_while(|token| *token != ";"));
        let pathed = positions(tokens, &["std", "::"]).filter_map(|at| tokens.get(at + 2));
        let modules = imported.chain(pathed).filter(|token| MODULES.contains(&token.as_str())).cloned();
        let named = tokens.iter().filter(|token| WORDS.contains(&token.as_str())).cloned();
        let now = positions(tokens, &["::", "now", "(", ")"]).map(|_| "now()".to_owned());
        found.extend(modules.chain(named).chain(now).map(|what| format!("{name}: {what}")));
    }
    none(found, "the protocol half does no I/O, reads no clock, never sleeps and logs nothing")
}

pub(super) fn modules_begin_with_their_doc() -> Result<()> {
    let lacking = source::all()?.iter().filter(|source| !source.text.starts_with("//! "));
    none(lacking.map(|source| source.name()).collect(), "files that do not begin with a module doc")
}

/// Fails for `foo/mod.rs` where `foo.rs` is meant. Under `tests/`, cargo would take `foo.rs` for a test of its own.
pub(super) fn no_module_is_named_mod() -> Result<()> {
    let is_test = |source: &Source| source.path.components().any(|part| part.as_os_str() == "tests");
    let found = source::all()?.iter().filter(|source| source.path.ends_with("mod.rs") && !is_test(source));
    none(found.map(|source| source.name()).collect(), "modules named mod.rs")
}

pub(super) fn no_test_is_ignored() -> Result<()> {
    let found =
        source::all()?.iter().filter(|source| positions(&source.tokens, &["#", "[", "ignore"]).next().is_some());
    none(found.map(|source| source.name()).collect(), "ignored tests")
}

/// Fails for files with more than 400 lines of code, which should be split into modules with one purpose each.
pub(super) fn files_are_short() -> Result<()> {
    const LIMIT: usize = 400;
    let long = source::all()?.iter().filter(|source| source.code_lines > LIMIT);
    let long = long.map(|source| format!("{}: {}", source.name(), source.code_lines));
    none(long.collect(), "more than 400 lines of code")
}

/// The one file of a server that may hold `unsafe`, in one block.
const REGISTRATION: &str = "zen-poll/src/registration.rs";

/// The files of examples that may hold further blocks, as an interface of the kernel demands them.
const WRAPPERS: [&str; 2] = ["zen-async/examples/own_executor/reactor.rs", "zen-poll/examples/completion/ring.rs"];

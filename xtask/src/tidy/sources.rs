//! What must hold in the sources.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::none;
use super::source::{self, Source};
use crate::workspace;

pub(super) fn unsafe_stands_in_one_block() -> Result<()> {
    let mut elsewhere = Vec::new();
    for source in source::all()? {
        let found = Source::words(&source.code).filter(|&word| word == "unsafe").count();
        let blocks = source.code.split_whitespace().collect::<Vec<_>>().join(" ").matches("unsafe {").count();
        if source.name() == REGISTRATION {
            ensure!(found == 1 && blocks == 1, "{REGISTRATION} says unsafe {found} times, {blocks} of them a block");
        } else if found > blocks || found > 0 && !WRAPPERS.contains(&source.name().as_str()) {
            elsewhere.push(format!("{}: {found} times", source.name()));
        }
    }
    none(elsewhere, "unsafe")
}

pub(super) fn crate_roots_forbid_unsafe_code() -> Result<()> {
    let (mut lacking, root) = (Vec::new(), workspace::root()?);
    for package in &workspace::metadata()?.packages {
        for target in &package.targets {
            let is_test = target.kind.iter().any(|kind| kind == "test");
            let is_poll = package.name == "zen-poll" && target.kind.iter().any(|kind| kind == "bin");
            let text = fs::read_to_string(&target.src_path)?;
            // An example may reuse the file in which the block stands, or have a wrapper beside it.
            let reuses = text.contains("registration.rs\"]");
            let folder = Path::new(&target.src_path).parent();
            let wraps = WRAPPERS.iter().any(|wrapper| root.join(wrapper).parent() == folder);
            if !is_test && !is_poll && !reuses && !wraps && !text.contains("#![forbid(unsafe_code)]") {
                lacking.push(format!("{} ({})", target.name, target.src_path.display()));
            }
        }
    }
    none(lacking, "crate roots that do not forbid unsafe code")
}

/// All of zen-proto but the chassis is handed its bytes and its time.
pub(super) fn protocol_does_no_io() -> Result<()> {
    const MODULES: [&str; 7] = ["env", "fs", "io", "net", "os", "process", "thread"];
    const WORDS: [&str; 8] = ["log", "sleep", "SystemTime", "dbg", "eprint", "eprintln", "print", "println"];
    let mut found = Vec::new();
    for source in source::all()? {
        let name = source.name();
        if !name.starts_with("zen-proto/src/") || name.starts_with("zen-proto/src/server") {
            continue;
        }
        let code = source.code_without_tests();
        let flat: String = code.split_whitespace().collect();
        let uses: String = code.split(';').filter(|item| item.contains("use std::")).collect();
        let imported = Source::words(&uses).filter(|word| MODULES.contains(word));
        let pathed = MODULES.iter().copied().filter(|module| flat.contains(&format!("std::{module}")));
        let named = Source::words(code).filter(|word| WORDS.contains(word));
        let now = flat.contains("::now()").then_some("now()");
        found.extend(imported.chain(pathed).chain(named).chain(now).map(|what| format!("{name}: {what}")));
    }
    none(found, "the protocol half does no I/O, reads no clock, never sleeps and logs nothing")
}

pub(super) fn modules_begin_with_their_doc() -> Result<()> {
    let lacking = source::all()?.into_iter().filter(|source| !source.text.starts_with("//! "));
    none(lacking.map(|source| source.name()).collect(), "no module doc first")
}

pub(super) fn no_test_is_ignored() -> Result<()> {
    let found = source::all()?.into_iter().filter(|source| source.code.contains("#[ignore"));
    none(found.map(|source| source.name()).collect(), "ignored tests")
}

/// A file that a reader cannot hold in the head wants a split along an idea.
pub(super) fn files_are_short() -> Result<()> {
    const LIMIT: usize = 400;
    let lines = |source: &Source| source.code.lines().filter(|line| !line.trim().is_empty()).count();
    let long = source::all()?.into_iter().filter(|source| lines(source) > LIMIT);
    none(long.map(|source| format!("{}: {}", source.name(), lines(&source))).collect(), "more than 400 lines of code")
}

/// The one file of a server that may hold `unsafe`, in one block.
const REGISTRATION: &str = "zen-poll/src/registration.rs";

/// The files of examples that may hold further blocks, as an interface of the kernel demands them.
const WRAPPERS: [&str; 2] = ["zen-async/examples/own_executor/reactor.rs", "zen-poll/examples/completion/ring.rs"];

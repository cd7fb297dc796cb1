//! The invariants of the design as tests: dependencies, `unsafe`, layers of imports, documentation, words.

mod answers;
mod circles;
mod links;
mod manifests;
mod source;
mod sources;
mod translations;
mod words;

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::trial::Trial;
use crate::workspace::{self, Package};

/// Returns one test for each invariant.
pub(crate) fn trials() -> Result<Vec<Trial>> {
    type Rule = fn() -> Result<()>;
    let rules: [(&str, Rule); 21] = [
        ("top_level_has_only_what_is_allowed", top_level_has_only_what_is_allowed),
        ("readmes_begin_like_their_crates", readmes_begin_like_their_crates),
        ("translations_are_in_step", translations::translations_are_in_step),
        ("each_prediction_has_its_answer", answers::each_prediction_has_its_answer),
        ("links_lead_somewhere", links::links_lead_somewhere),
        ("dependencies_are_those_allowed", manifests::dependencies_are_those_allowed),
        ("protocol_needs_at_most_memchr", manifests::protocol_needs_at_most_memchr),
        ("versions_stand_in_the_root_only", manifests::versions_stand_in_the_root_only),
        ("lints_are_the_workspaces", manifests::lints_are_the_workspaces),
        ("one_advisory_is_excepted", manifests::one_advisory_is_excepted),
        ("imports_form_layers", circles::imports_form_layers),
        ("unsafe_stands_in_one_block", sources::unsafe_stands_in_one_block),
        ("crate_roots_forbid_unsafe_code", sources::crate_roots_forbid_unsafe_code),
        ("protocol_does_no_io", sources::protocol_does_no_io),
        ("modules_begin_with_their_doc", sources::modules_begin_with_their_doc),
        ("no_module_is_named_mod", sources::no_module_is_named_mod),
        ("no_test_is_ignored", sources::no_test_is_ignored),
        ("files_are_short", sources::files_are_short),
        ("sentences_are_plain", words::sentences_are_plain),
        ("names_are_the_fields", words::names_are_the_fields),
        ("lines_fit_in_120_columns", words::lines_fit_in_120_columns),
    ];
    Ok(rules.into_iter().map(|(name, rule)| Trial::new(format!("tidy::{name}"), rule)).collect())
}

/// Fails if anything was found, and lists all of it.
fn none(found: Vec<String>, what: &str) -> Result<()> {
    ensure!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
    Ok(())
}

/// Fails unless the top level has the seven crates, what every Rust repository has, and nothing else.
fn top_level_has_only_what_is_allowed() -> Result<()> {
    const ALLOWED: [&str; 10] = [
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "README.zh-CN.md",
        "deny.toml",
        "target",
    ];
    const CRATES: [&str; 7] =
        ["xtask", "zen-async", "zen-client", "zen-poll", "zen-proto", "zen-single", "zen-threaded"];
    let mut packages: Vec<&str> = workspace::metadata()?.packages.iter().map(|package| package.name.as_str()).collect();
    packages.sort_unstable();
    ensure!(packages == CRATES, "the crates are {packages:?}");
    let root = workspace::root()?;
    let mut strange = Vec::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !ALLOWED.contains(&name.as_str()) && !CRATES.contains(&name.as_str()) {
            strange.push(name);
        }
    }
    none(strange, "not expected at the top level")?;
    let is_there = |name: &&str| root.join(name).exists();
    let lacking = ALLOWED.iter().filter(|name| **name != "target" && !is_there(name));
    none(lacking.map(ToString::to_string).collect(), "lacking at the top level")
}

/// Fails unless a crate's README and its `//!` begin with the same sentence.
fn readmes_begin_like_their_crates() -> Result<()> {
    let mut different = Vec::new();
    for package in &workspace::metadata()?.packages {
        let readme = fs::read_to_string(package.folder().join("README.md")).unwrap_or_default();
        let root = fs::read_to_string(root_of(package)?)?;
        let doc: String =
            root.lines().map_while(|line| line.strip_prefix("//!")).flat_map(|line| [line.trim(), "\n"]).collect();
        let (readme, doc) = (first_sentence(&readme), first_sentence(&doc));
        if readme != doc || doc.is_none() {
            different.push(format!("{}: README {readme:?}, crate {doc:?}", package.name));
        }
    }
    none(different, "first sentences differ")
}

/// Returns the root file of a crate: of its library, else of its binary.
fn root_of(package: &Package) -> Result<&std::path::Path> {
    let of_kind = |kind: &str| package.targets.iter().find(|target| target.kind.iter().any(|k| k == kind));
    let target = of_kind("lib").or_else(|| of_kind("bin"));
    Ok(&target.with_context(|| format!("{} has neither library nor binary", package.name))?.src_path)
}

/// Returns the first sentence of a Markdown text below its title, on one line.
fn first_sentence(text: &str) -> Option<String> {
    let is_prose = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let paragraph: Vec<&str> =
        text.lines().map(str::trim).skip_while(|line| !is_prose(line)).take_while(is_prose).collect();
    let words = paragraph.join(" ");
    let sentence = words.split_inclusive(". ").next()?.trim_end();
    sentence.ends_with('.').then(|| sentence.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_sentence_may_be_wrapped() {
        let text = "# zen\n\nOne `v1.2` thing,\nsaid at once. Then more.\n\nAnd more.\n";
        assert_eq!(first_sentence(text).as_deref(), Some("One `v1.2` thing, said at once."));
        assert_eq!(first_sentence("# zen\n\nno full stop\n"), None);
        assert_eq!(first_sentence(""), None);
    }
}

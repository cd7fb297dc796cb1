//! Compares each Chinese page, `NAME.zh-CN.md`, with the English `NAME.md` that it translates.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::none;
use crate::workspace;

pub(super) fn translations_are_in_step() -> Result<()> {
    let root = workspace::root()?;
    let mut out_of_step = Vec::new();
    for english in workspace::pages()? {
        let chinese = workspace::translation(&english);
        let name = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
        let read = |path: &Path| fs::read_to_string(path).with_context(|| name(path));
        let stem = english.file_stem().unwrap_or_default().to_string_lossy();
        if let Some(difference) = first_difference(&stem, &read(&english)?, &read(&chinese)?) {
            out_of_step.push(format!("{}: {difference}", name(&chinese)));
        }
    }
    none(out_of_step, "not in step with the English")
}

/// What a translation keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kept<'a> {
    /// A heading: its level.
    Heading(usize),
    /// A row of a table: words change, their number does not.
    Row,
    /// A line of a fenced block, its fences included. It stays byte for byte, because only the English blocks are run.
    Fenced(&'a str),
}

/// Returns a description of the first difference in what the Chinese text should have kept; `None` without one.
fn first_difference(stem: &str, english: &str, chinese: &str) -> Option<String> {
    let (to_chinese, to_english) = (format!("[中文]({stem}.zh-CN.md)"), format!("[English]({stem}.md)"));
    if !english.lines().any(|line| line == to_chinese) {
        return Some(format!("the English has no line {to_chinese}"));
    }
    if !chinese.lines().any(|line| line == to_english) {
        return Some(format!("no line {to_english}"));
    }
    let (mut theirs, mut ours) = (kept(english).into_iter(), kept(chinese).into_iter());
    loop {
        let (their, our) = (theirs.next(), ours.next());
        if their.map(|(_, what)| what) != our.map(|(_, what)| what) {
            return Some(format!("{}, but {} in the English", described(our), described(their)));
        }
        their?;
    }
}

fn described(kept: Option<(usize, Kept)>) -> String {
    match kept {
        None => "nothing more".to_owned(),
        Some((line, Kept::Heading(level))) => format!("line {line} is a heading of level {level}"),
        Some((line, Kept::Row)) => format!("line {line} is a row of a table"),
        Some((line, Kept::Fenced(text))) => format!("line {line} is {text:?} of a block"),
    }
}

/// Returns what a translation of this text must keep, each with its line number. Generated parts are left out, because
/// they may be older in one of the two pages.
fn kept(text: &str) -> Vec<(usize, Kept<'_>)> {
    let mut kept = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let begun = line.trim_start();
        if begun == GENERATED.0 {
            lines.find(|(line, _)| line.trim_start() == GENERATED.1);
        } else if begun.starts_with(FENCE) {
            kept.push((number, Kept::Fenced(line)));
            for (line, number) in lines.by_ref() {
                kept.push((number, Kept::Fenced(line)));
                if line.trim() == FENCE {
                    break;
                }
            }
        } else if begun.starts_with('|') {
            kept.push((number, Kept::Row));
        } else if line.starts_with('#') {
            kept.push((number, Kept::Heading(line.len() - line.trim_start_matches('#').len())));
        }
    }
    kept
}

const FENCE: &str = "```";

/// The lines around a part that `cargo xtask bench` generates.
const GENERATED: (&str, &str) = ("<!-- bench:begin -->", "<!-- bench:end -->");

#[cfg(test)]
mod tests {
    use super::*;

    const TO_CHINESE: &str = "[中文](a.zh-CN.md)";
    const TO_ENGLISH: &str = "[English](a.md)";

    #[test]
    fn headings_rows_and_blocks_are_kept() {
        let english = format!("# a\n{TO_CHINESE}\n```sh\n# b\n```\n| c |\n");
        let chinese = |below: &str| first_difference("a", &english, &format!("# 一\n{TO_ENGLISH}\n{below}"));
        assert_eq!(chinese("```sh\n# b\n```\n二\n| 三 |\n"), None);
        let changed = chinese("```sh\n# 二\n```\n| 三 |\n");
        assert_eq!(
            changed.as_deref(),
            Some("line 4 is \"# 二\" of a block, but line 4 is \"# b\" of a block in the English")
        );
        let lacking = chinese("```sh\n# b\n```\n");
        assert_eq!(lacking.as_deref(), Some("nothing more, but line 6 is a row of a table in the English"));
        let heading = chinese("## 二\n");
        assert_eq!(
            heading.as_deref(),
            Some("line 3 is a heading of level 2, but line 3 is \"```sh\" of a block in the English")
        );
    }

    #[test]
    fn generated_figures_are_not_compared() {
        let english = format!("{TO_CHINESE}\n{}\n| new |\n| 1 |\n{}\n# a\n", GENERATED.0, GENERATED.1);
        let chinese = format!("{TO_ENGLISH}\n{}\n| old |\n{}\n# 一\n", GENERATED.0, GENERATED.1);
        assert_eq!(first_difference("a", &english, &chinese), None);
    }

    #[test]
    fn both_name_the_other() {
        assert!(first_difference("a", "# a\n", TO_ENGLISH).is_some_and(|text| text.contains(TO_CHINESE)));
        assert!(first_difference("a", TO_CHINESE, "# 一\n").is_some_and(|text| text.contains(TO_ENGLISH)));
    }
}

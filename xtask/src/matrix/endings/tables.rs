//! Compares the tables of endings in the docs and READMEs with the rows that are tested.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Line, ROWS, Row, Then};
use crate::servers::{Entry, SERVERS};
use crate::workspace;

/// Expects exactly these rows: all of them in the docs, and in a README those that apply to its servers.
pub(super) fn tables_are_what_is_tested() -> Result<()> {
    let root = workspace::root()?;
    let all: Vec<&Row> = ROWS.iter().collect();
    is_english(&root.join("zen-proto/src/ending.rs"), &all)?;
    for package in &workspace::metadata()?.packages {
        let servers: Vec<&Entry> = SERVERS.iter().filter(|entry| entry.package == package.name).collect();
        let applies = |row: &&Row| servers.iter().any(|entry| (row.applies)(entry));
        let rows: Vec<&Row> = ROWS.iter().filter(applies).collect();
        if !rows.is_empty() {
            is_english(&package.folder().join("README.md"), &rows)?;
            is_chinese(&package.folder().join("README.zh-CN.md"), &rows)?;
        }
    }
    Ok(())
}

fn is_english(file: &Path, rows: &[&Row]) -> Result<()> {
    let found = table(file, ENGLISH)?;
    let expected: Vec<String> = rows.iter().map(|row| row.markdown()).collect();
    ensure!(found == expected, "{}: expected\n{}\nfound\n{}", file.display(), expected.join("\n"), found.join("\n"));
    Ok(())
}

/// Expects a translation: its words differ, but what is in backquotes stays, in the same order.
fn is_chinese(file: &Path, rows: &[&Row]) -> Result<()> {
    let found = table(file, CHINESE)?;
    ensure!(found.len() == rows.len(), "{}: {} rows, not {}", file.display(), found.len(), rows.len());
    for (found, row) in found.iter().zip(rows) {
        let is_same = printed(found).eq(printed(&row.markdown()))
            && found.matches("*-v*").count() == row.log.iter().filter(|line| line.is_verbose).count()
            && found.split('|').nth(3).is_some_and(|then| then.trim() == row.then.words().1);
        ensure!(is_same, "{}: {found}\nis not a translation of\n{}", file.display(), row.markdown());
    }
    Ok(())
}

/// Returns the rows of the table with this head.
fn table(file: &Path, head: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let lines = text.lines().map(|line| line.trim_start_matches("///").trim());
    let below = lines.skip_while(|line| *line != head).skip(2);
    Ok(below.take_while(|line| line.starts_with('|')).map(str::to_owned).collect())
}

/// Returns the parts of a row that are in backquotes.
fn printed(row: &str) -> impl Iterator<Item = &str> {
    row.split('`').skip(1).step_by(2)
}

impl Row {
    /// Returns the row of the English tables.
    fn markdown(&self) -> String {
        format!("| {} | {} | {} | {} |", self.cause, self.receives, self.then.words().0, self.log_cell())
    }

    /// Returns the log lines as a cell of the table.
    pub(super) fn log_cell(&self) -> String {
        let cell = |line: &Line| {
            let verbose = if line.is_verbose { " (*-v*)" } else { "" };
            format!("`{}`{verbose}", line.text)
        };
        self.log.iter().map(cell).collect::<Vec<_>>().join(", ")
    }
}

impl Then {
    /// Returns its words in the English and in the Chinese tables.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Then::Close => ("close", "关闭"),
            Then::LingeringClose => ("lingering close", "延迟关闭"),
            Then::Reset => ("reset", "重置"),
            Then::Nothing => ("–", "–"),
        }
    }
}

const ENGLISH: &str = "| cause | the client receives | then | log line |";

const CHINESE: &str = "| 原因 | 客户端收到 | 随后 | 日志行 |";

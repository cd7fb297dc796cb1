//! A Rust file as far as tidiness asks: its code without comments and literals.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace::{self, Package};

/// A file of the workspace.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// The text with comments and the contents of literals blanked out; lines stay where they are.
    pub(crate) code: String,
}

impl Source {
    /// The code above the unit tests, which stand at the bottom; none of a file that is itself a test.
    pub(crate) fn code_without_tests(&self) -> &str {
        if self.path.components().any(|part| part.as_os_str() == "tests") {
            return "";
        }
        self.code.split("#[cfg(test)]").next().unwrap_or_default()
    }

    /// The identifiers and keywords of the code.
    pub(crate) fn words(code: &str) -> impl Iterator<Item = &str> {
        code.split(|c: char| !is_of_word(c)).filter(|word| !word.is_empty())
    }

    /// The name by which a failure calls it.
    pub(crate) fn name(&self) -> String {
        let root = workspace::root().unwrap_or(Path::new(""));
        self.path.strip_prefix(root).unwrap_or(&self.path).display().to_string()
    }
}

/// Every Rust file of a package: sources, tests, examples.
pub(crate) fn of(package: &Package) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders = vec![package.folder().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                let code = code(&text);
                sources.push(Source { path, text, code });
            }
        }
    }
    Ok(sources)
}

/// Every Rust file of the workspace.
pub(crate) fn all() -> Result<Vec<Source>> {
    Ok(workspace::metadata()?.packages.iter().map(of).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Blanks out comments and literals.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let follows_word = code.chars().next_back().is_some_and(is_of_word);
        let length = skipped(rest, follows_word);
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    code
}

/// How long the comment or literal is with which `rest` begins.
fn skipped(rest: &str, follows_word: bool) -> usize {
    let until = |end: Option<usize>| end.unwrap_or(rest.len());
    if rest.starts_with("//") {
        return until(rest.find('\n'));
    }
    if rest.starts_with("/*") {
        return until(rest.find("*/").map(|at| at + 2));
    }
    if !follows_word && let Some(raw) = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r')) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let start = rest.len() - raw.len() + hashes + 1;
            let end = format!("\"{}", "#".repeat(hashes));
            return until(rest[start..].find(&end).map(|at| start + at + end.len()));
        }
    }
    if rest.starts_with('"') {
        return until(end_of_quoted(rest, '"'));
    }
    // A quote begins a character unless it begins a lifetime, which no second quote follows so soon.
    let mut after = rest.chars().skip(1);
    match (rest.starts_with('\''), after.next(), after.next()) {
        (true, Some('\\'), _) => until(end_of_quoted(rest, '\'')),
        (true, Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

fn end_of_quoted(rest: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "let a = \"x \\\" unsafe\"; // unsafe\nlet b: &'a str = r#\"unsafe \"q\" \"#; /* unsafe\n */ let c = ('\\'', 'u', b'\"');\nfor_r\"\"";
        let code = code(text);
        let words: Vec<&str> = Source::words(&code).collect();
        assert_eq!(words, ["let", "a", "let", "b", "a", "str", "let", "c", "b", "for_r"]);
        assert_eq!(code.lines().count(), text.lines().count());
    }
}

//! The Rust files of the workspace: their text, and their tokens without comments and literals.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree, token_stream};

use crate::workspace;

/// A file of the workspace.
pub(crate) struct Source {
    /// The package that it belongs to.
    pub(crate) package: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// Words, `::`, and all other characters one by one. A literal, or the text of a doc comment, is `"`.
    pub(crate) tokens: Vec<String>,
    /// How many lines have code: neither blank, nor a comment, nor the inside of a literal.
    pub(crate) code_lines: usize,
}

impl Source {
    /// Returns the tokens above the unit tests, which are at the bottom; none of a file that is itself a test.
    pub(crate) fn tokens_without_tests(&self) -> &[String] {
        if self.path.components().any(|part| part.as_os_str() == "tests") {
            return &[];
        }
        let end = positions(&self.tokens, &["#", "[", "cfg", "(", "test", ")", "]"]).next();
        &self.tokens[..end.unwrap_or(self.tokens.len())]
    }

    /// Returns the path below the top of the checkout.
    pub(crate) fn name(&self) -> String {
        let root = workspace::root().unwrap_or(Path::new(""));
        self.path.strip_prefix(root).unwrap_or(&self.path).display().to_string()
    }
}

/// Returns every Rust file of the workspace: sources, tests, examples.
pub(crate) fn all() -> Result<&'static [Source]> {
    static ALL: OnceLock<Vec<Source>> = OnceLock::new();
    if let Some(all) = ALL.get() {
        return Ok(all);
    }
    let mut all = Vec::new();
    for package in &workspace::metadata()?.packages {
        let mut folders = vec![package.folder().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                    let stream = parsed(&text).with_context(|| path.display().to_string())?;
                    let (mut lines, mut tokens) = (BTreeSet::new(), Vec::new());
                    collect_lines(stream.clone(), &mut lines);
                    collect(stream, &mut tokens);
                    all.push(Source { package: &package.name, path, text, tokens, code_lines: lines.len() });
                }
            }
        }
    }
    Ok(ALL.get_or_init(|| all))
}

fn parsed(text: &str) -> Result<TokenStream> {
    TokenStream::from_str(text).map_err(|error| anyhow!("no Rust: {error}"))
}

/// Collects the lines with tokens other than literals and doc comments.
fn collect_lines(stream: TokenStream, lines: &mut BTreeSet<usize>) {
    let mut trees = stream.into_iter();
    while let Some(tree) = trees.next() {
        match tree {
            TokenTree::Punct(punct) if punct.as_char() == '#' && skips_doc(&mut trees) => {}
            TokenTree::Group(group) => {
                lines.insert(group.span_open().start().line);
                collect_lines(group.stream(), lines);
                lines.insert(group.span_close().start().line);
            }
            TokenTree::Literal(_) => {}
            other => _ = lines.insert(other.span().start().line),
        }
    }
}

/// Skips `[doc = …]` or `![doc = …]`, the parsed form of a doc comment. Returns false if something else follows.
fn skips_doc(trees: &mut token_stream::IntoIter) -> bool {
    let mut ahead = trees.clone().skip_while(|tree| matches!(tree, TokenTree::Punct(punct) if punct.as_char() == '!'));
    let Some(TokenTree::Group(group)) = ahead.next() else { return false };
    let is_doc = matches!(group.stream().into_iter().next(), Some(TokenTree::Ident(word)) if word == "doc");
    if is_doc {
        trees.find(|tree| matches!(tree, TokenTree::Group(_)));
    }
    is_doc
}

/// Returns the tokens of a Rust text.
#[cfg(test)]
pub(crate) fn tokens(text: &str) -> Result<Vec<String>> {
    let mut tokens = Vec::new();
    collect(parsed(text)?, &mut tokens);
    Ok(tokens)
}

fn collect(stream: TokenStream, tokens: &mut Vec<String>) {
    let mut rest = stream.into_iter().peekable();
    while let Some(tree) = rest.next() {
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                tokens.push(open.to_owned());
                collect(group.stream(), tokens);
                tokens.push(close.to_owned());
            }
            TokenTree::Ident(word) => tokens.push(word.to_string()),
            TokenTree::Literal(_) => tokens.push("\"".to_owned()),
            TokenTree::Punct(colon) if colon.as_char() == ':' && colon.spacing() == Spacing::Joint => {
                rest.next();
                tokens.push("::".to_owned());
            }
            TokenTree::Punct(punct) => tokens.push(punct.as_char().to_string()),
        }
    }
}

/// Returns where these tokens follow each other.
pub(crate) fn positions(tokens: &[String], wanted: &[&str]) -> impl Iterator<Item = usize> {
    let windows = tokens.windows(wanted.len()).enumerate();
    windows
        .filter(move |(_, window)| window.iter().zip(wanted).all(|(token, wanted)| token == wanted))
        .map(|(at, _)| at)
}

/// Returns whether a token is an identifier or a keyword.
pub(crate) fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "let a = \"x \\\" unsafe\"; // unsafe\nlet b: &'a str = r#\"unsafe \"q\" \"#; /* unsafe\n */ \
                    let c = (a::b, '\\'', 'u', b'\"');";
        let tokens = tokens(text).expect("it is Rust");
        let words: Vec<&str> = tokens.iter().map(String::as_str).filter(|token| is_word(token)).collect();
        assert_eq!(words, ["let", "a", "let", "b", "a", "str", "let", "c", "a", "b"]);
        assert_eq!(positions(&tokens, &["a", "::", "b"]).count(), 1);
    }
}

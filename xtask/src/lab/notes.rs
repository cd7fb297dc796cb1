//! What an experiment tells while it goes on, what it has seen, and how that is printed.

use std::io::{self, IsTerminal, Write};

/// The notes of one experiment.
pub(crate) struct Notes {
    seen: Vec<String>,
    /// Whether somebody watches the line of progress.
    is_live: bool,
    /// Whether a smaller crowd will do.
    is_brief: bool,
}

impl Notes {
    /// For a test: nothing is told, and numbers are small.
    pub(crate) fn brief() -> Self {
        Self { seen: Vec::new(), is_live: false, is_brief: true }
    }

    /// For a reader.
    pub(crate) fn told() -> Self {
        Self { seen: Vec::new(), is_live: io::stdout().is_terminal(), is_brief: false }
    }

    /// Says what is going on, in the place of what went on before.
    pub(crate) fn doing(&self, what: &str) {
        if self.is_live {
            print!("\r\x1b[2K… {what}");
            let _ = io::stdout().flush(); // a line less to look at
        }
    }

    /// Ends the line of progress.
    pub(crate) fn clear_line(&self) {
        if self.is_live {
            print!("\r\x1b[2K");
        }
    }

    /// Notes what has been measured.
    pub(crate) fn saw(&mut self, what: impl Into<String>) {
        self.seen.push(what.into());
    }

    /// All that was noted.
    pub(crate) fn seen(&self) -> &[String] {
        &self.seen
    }

    /// Whether a smaller crowd will do.
    pub(crate) fn is_brief(&self) -> bool {
        self.is_brief
    }
}

/// Claim and measurements in two columns.
pub(crate) fn side_by_side(claim: &str, seen: &[String]) -> String {
    let claim = wrapped(claim, CLAIM);
    let mut lines = Vec::new();
    for line in seen {
        let mut sign = "·";
        for piece in wrapped(line, SEEN) {
            lines.push(format!("{sign} {piece}"));
            sign = " ";
        }
    }
    let mut text = format!("{:CLAIM$} │ measured\n{:─<CLAIM$}─┼─{:─<SEEN$}──\n", "claimed", "", "");
    for n in 0..claim.len().max(lines.len()) {
        let (left, right) = (claim.get(n).map_or("", String::as_str), lines.get(n).map_or("", String::as_str));
        text += format!("{left:CLAIM$} │ {right}").trim_end();
        text.push('\n');
    }
    text
}

/// A paragraph that begins with `head`.
pub(crate) fn paragraph(head: &str, text: &str) -> String {
    wrapped(&format!("{head} {text}"), CLAIM + SEEN + 5).join("\n")
}

/// The text in lines of at most `width` characters, where its words allow that.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one line at least");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// How wide the columns are.
const CLAIM: usize = 34;
const SEEN: usize = 66;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("unbreakable", 3), ["unbreakable"]);
        assert_eq!(wrapped("", 3), [""]);
    }

    #[test]
    fn columns_stand_side_by_side() {
        let text = side_by_side("it is so", &["it was not".to_owned(), "and never will be".to_owned()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[2].starts_with("it is so  ") && lines[2].ends_with("│ · it was not"), "{text}");
        assert!(lines[3].ends_with("│ · and never will be"), "{text}");
    }
}

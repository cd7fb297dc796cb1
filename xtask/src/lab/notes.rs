//! The results that an experiment notes while it runs, in English or Chinese, and how they are printed.

use std::io::{self, IsTerminal, Write};

use textwrap::core::display_width;
use textwrap::wrap;

/// Notes a measurement, as a format string in English and the same in Chinese: `saw!(notes, "{n} kept", "保留了 {n} 个")`.
macro_rules! saw {
    ($notes:expr, $english:literal, $chinese:literal $(, $name:ident = $value:expr)* $(,)?) => {{
        $(let $name = $value;)*
        let text = match $notes.language() {
            $crate::lab::notes::Language::En => format!($english),
            $crate::lab::notes::Language::Zh => format!($chinese),
        };
        $notes.saw(text);
    }};
}

/// The language of claims and measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Language {
    #[default]
    En,
    Zh,
}

/// A text in English and in Chinese.
#[derive(Clone, Copy)]
pub(crate) struct Text(pub(crate) &'static str, pub(crate) &'static str);

impl Text {
    pub(crate) fn in_(self, language: Language) -> &'static str {
        match language {
            Language::En => self.0,
            Language::Zh => self.1,
        }
    }
}

/// The notes of one experiment.
pub(crate) struct Notes {
    seen: Vec<String>,
    language: Language,
    /// Whether a line of progress is shown on the terminal.
    is_live: bool,
    /// Whether experiments may use smaller numbers, to take less time.
    is_brief: bool,
}

impl Notes {
    /// Returns notes for a test: no progress is shown, and numbers are small.
    pub(crate) fn for_test() -> Self {
        Self { seen: Vec::new(), language: Language::En, is_live: false, is_brief: true }
    }

    /// Returns notes for a reader.
    pub(crate) fn for_reader(language: Language) -> Self {
        Self { seen: Vec::new(), language, is_live: io::stdout().is_terminal(), is_brief: false }
    }

    /// Shows what the experiment does now, in place of the previous line of progress.
    pub(crate) fn doing(&self, what: &str) {
        if self.is_live {
            print!("\r\x1b[2K… {what}");
            let _ = io::stdout().flush(); // an error is ignored: the line is not part of the result
        }
    }

    /// Clears the line of progress.
    pub(crate) fn clear_line(&self) {
        if self.is_live {
            print!("\r\x1b[2K");
        }
    }

    /// Notes what has been measured; [`saw!`] chooses the language.
    pub(crate) fn saw(&mut self, what: String) {
        self.seen.push(what);
    }

    /// Returns all that was noted.
    pub(crate) fn seen(&self) -> &[String] {
        &self.seen
    }

    pub(crate) fn language(&self) -> Language {
        self.language
    }

    /// Returns whether the experiment may use smaller numbers, to take less time.
    pub(crate) fn is_brief(&self) -> bool {
        self.is_brief
    }
}

/// Returns claim and measurements in two columns.
pub(crate) fn side_by_side(language: Language, claim: &str, seen: &[String]) -> String {
    let claim = wrap(claim, CLAIM);
    let mut lines = Vec::new();
    for line in seen {
        let mut sign = "·";
        for piece in wrap(line, SEEN) {
            lines.push(format!("{sign} {piece}"));
            sign = " ";
        }
    }
    let row = |left: &str, right: &str| {
        let padding = " ".repeat(CLAIM.saturating_sub(display_width(left)));
        format!("{left}{padding} │ {right}").trim_end().to_owned() + "\n"
    };
    let mut text = row(Text("claimed", "说法").in_(language), Text("measured", "实测").in_(language));
    text += &format!("{:─<CLAIM$}─┼─{:─<SEEN$}──\n", "", "");
    for n in 0..claim.len().max(lines.len()) {
        text += &row(claim.get(n).map_or("", |left| left), lines.get(n).map_or("", String::as_str));
    }
    text
}

/// Returns a paragraph that begins with `head`.
pub(crate) fn paragraph(head: &str, text: &str) -> String {
    wrap(&format!("{head} {text}"), CLAIM + SEEN + 5).join("\n")
}

/// Columns of a terminal that each side takes.
const CLAIM: usize = 34;
const SEEN: usize = 66;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_side_by_side() {
        let text = side_by_side(Language::En, "it is so", &["it was not".to_owned(), "and never will be".to_owned()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[2].starts_with("it is so  ") && lines[2].ends_with("│ · it was not"), "{text}");
        assert!(lines[3].ends_with("│ · and never will be"), "{text}");
    }

    #[test]
    fn chinese_takes_two_columns_a_character_and_breaks_anywhere() {
        let text = side_by_side(Language::Zh, &"线".repeat(20), &["实测".to_owned()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], format!("{} │ · 实测", "线".repeat(17)));
        assert_eq!(lines[3], format!("{}{} │", "线".repeat(3), " ".repeat(28)));
    }
}

//! The words of the project: plain ones in sentences, and the field's terms as names.

use std::fs;

use anyhow::Result;

use super::none;
use super::source;
use crate::workspace;

/// Fails for words that are banned from Rust files and Markdown pages, because plainer ones exist.
pub(super) fn sentences_are_plain() -> Result<()> {
    let mut found = Vec::new();
    for (name, text) in texts()? {
        for (number, line) in text.lines().enumerate() {
            let banned = banned_in(line).map(|word| format!("{name}:{}: {word}", number + 1));
            found.extend(banned);
        }
    }
    none(found, "banned words")
}

/// Fails for identifiers of the invented vocabulary that the field's terms have replaced.
pub(super) fn names_are_the_fields() -> Result<()> {
    let mut found = Vec::new();
    for source in source::all()? {
        let old = source.tokens.iter().filter(|token| OLD_NAMES.contains(&token.as_str()));
        found.extend(old.map(|word| format!("{}: {word}", source.name())));
    }
    none(found, "names that have been replaced")
}

/// Fails for lines that do not fit, comments and strings included. What another program printed is quoted as it is, in
/// raw strings, and a row of a table cannot be broken.
pub(super) fn lines_fit_in_120_columns() -> Result<()> {
    let mut found = Vec::new();
    for source in source::all()? {
        let mut raw_end = None;
        for (number, line) in source.text.lines().enumerate() {
            let is_raw = raw_end.is_some();
            let rest = raw_end.map_or(Some(line), |end: &str| line.split_once(end).map(|(_, rest)| rest));
            if let Some(rest) = rest {
                let starts = RAW_STRINGS.iter().filter_map(|(start, end)| Some((rest.split_once(start)?.1, *end)));
                raw_end = starts.filter(|(rest, end)| !rest.contains(end)).map(|(_, end)| end).next();
            }
            let is_row = source.name().starts_with(PICTURES)
                || line.trim_start().trim_start_matches(['/', '!']).starts_with(" |");
            if line.chars().count() > COLUMNS && !is_raw && raw_end.is_none() && !is_row {
                found.push(format!("{}:{}", source.name(), number + 1));
            }
        }
    }
    none(found, "lines of more than 120 columns")
}

/// Returns the name and the text of each file with sentences: Rust files and Markdown.
fn texts() -> Result<Vec<(String, String)>> {
    let mut texts: Vec<_> = source::all()?.iter().map(|source| (source.name(), source.text.clone())).collect();
    let root = workspace::root()?;
    let packages = workspace::metadata()?.packages.iter().map(|package| package.folder().to_owned());
    for folder in packages.chain([root.to_owned(), root.join("xtask/deploy"), root.join("xtask/teach")]) {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                texts.push((name, fs::read_to_string(&path)?));
            }
        }
    }
    // This file contains the list of banned words.
    texts.retain(|(name, _)| name != "xtask/src/tidy/words.rs");
    Ok(texts)
}

/// Returns the banned phrases in a line, as whole words.
fn banned_in(line: &str) -> impl Iterator<Item = &'static str> {
    let words: Vec<String> = line.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_lowercase).collect();
    let text = format!(" {} ", words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "));
    BANNED.iter().copied().filter(move |phrase| text.contains(&format!(" {phrase} ")))
}

const COLUMNS: usize = 120;

/// Markup and style sheets of pictures have long lines.
const PICTURES: &str = "xtask/src/trace/";

/// The beginnings of raw strings, with their ends.
const RAW_STRINGS: [(&str, &str); 3] = [("r##\"", "\"##"), ("r#\"", "\"#"), ("r\"", "\"")];

const BANNED: [&str; 13] = [
    "whoever",
    "nobody",
    "somebody",
    "anew",
    "beside",
    "besides",
    "so many",
    "so long",
    "for want of",
    "in vain",
    "let go",
    "lets go",
    "is to be",
];

const OLD_NAMES: &[&str] = &[
    "apparatus",
    "beat_together",
    "bell",
    "board",
    "bury",
    "canned",
    "complain",
    "complained",
    "door",
    "exhibit",
    "Figures",
    "fleet",
    "Fleet",
    "Guest",
    "guest",
    "guests",
    "Guests",
    "hear",
    "heir",
    "is_exhibit",
    "is_heir",
    "is_twin",
    "let_go",
    "manner",
    "Manner",
    "may_live",
    "next_beat",
    "pardon",
    "patience",
    "PATIENCE",
    "pulse",
    "Pulse",
    "rang",
    "sabotage",
    "sage",
    "say_goodbye",
    "take_over",
    "tells_parent",
    "thinkers",
    "thought",
    "turn_away",
    "turned_away",
    "TurnedAway",
    "twin",
    "valve",
    "Valve",
    "welcome",
    "wish",
    "Wish",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banned_phrase_is_found_as_whole_words() {
        let found = |line| banned_in(line).collect::<Vec<_>>();
        assert_eq!(found("/// Whoever comes is served, so many at once."), ["whoever", "so many"]);
        assert!(found("let gopher = is_nobody; // also manyfold").is_empty());
    }
}

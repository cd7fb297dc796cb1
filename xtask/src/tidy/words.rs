//! The words of the project: plain ones in sentences, and the field's terms as names.

use anyhow::Result;

use super::none;
use super::source::{self, Source};

/// Fails for words that are banned from comments, messages and help texts, since plainer ones exist.
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
        let old = Source::words(&source.code).filter(|word| OLD_NAMES.contains(word));
        found.extend(old.map(|word| format!("{}: {word}", source.name())));
    }
    none(found, "names that have been replaced")
}

/// Fails for comments that do not fit; rustfmt keeps the code within the same limit.
pub(super) fn comments_fit_in_120_columns() -> Result<()> {
    let mut found = Vec::new();
    for source in source::all()? {
        let is_long = |line: &str| line.trim_start().starts_with("//") && line.chars().count() > COLUMNS;
        let long = source.text.lines().enumerate().filter(|(_, line)| is_long(line));
        found.extend(long.map(|(number, _)| format!("{}:{}", source.name(), number + 1)));
    }
    none(found, "comments of more than 120 columns")
}

/// Returns the name and the text of each file of the folders that are held to plain words.
fn texts() -> Result<Vec<(String, String)>> {
    let mut texts: Vec<_> = source::all()?.into_iter().map(|source| (source.name(), source.text)).collect();
    texts.retain(|(name, _)| PLAIN.iter().any(|folder| name.starts_with(folder)));
    Ok(texts)
}

/// Returns the banned phrases in a line, as whole words.
fn banned_in(line: &str) -> impl Iterator<Item = &'static str> {
    let words: Vec<String> = line.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_lowercase).collect();
    let text = format!(" {} ", words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "));
    BANNED.iter().copied().filter(move |phrase| text.contains(&format!(" {phrase} ")))
}

/// The folders that are held to plain words. The other files still have some of the banned ones.
const PLAIN: [&str; 9] = [
    "zen-async/",
    "zen-poll/",
    "zen-proto/",
    "zen-single/",
    "zen-threaded/",
    "xtask/src/challenge",
    "xtask/src/lab",
    "xtask/src/trace/lanes",
    "xtask/src/trace/summary",
];

const COLUMNS: usize = 120;

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

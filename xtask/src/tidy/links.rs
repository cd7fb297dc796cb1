//! The links in the READMEs and in the pages for teachers: each leads to an existing file, and to an existing heading.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::none;
use crate::workspace;

pub(super) fn links_lead_somewhere() -> Result<()> {
    let root = workspace::root()?;
    let mut dead = Vec::new();
    for page in workspace::pages()?.into_iter().flat_map(|page| [workspace::translation(&page), page]) {
        let text = read(&page)?;
        for link in links(&text).filter(|link| !link.contains("://")) {
            if !leads_somewhere(&page, link)? {
                dead.push(format!("{}: {link}", page.strip_prefix(root).unwrap_or(&page).display()));
            }
        }
    }
    none(dead, "links that lead nowhere")
}

fn leads_somewhere(page: &Path, link: &str) -> Result<bool> {
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let target = if file.is_empty() { page.to_owned() } else { page.with_file_name(file) };
    match anchor {
        None => Ok(target.exists()),
        Some(anchor) => Ok(target.is_file() && anchors(&read(&target)?).any(|there| there == anchor)),
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Returns the targets of the links of a Markdown text.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link)
}

/// Returns the anchors of the headings as GitHub derives them: lower-case letters, digits, and a hyphen for each space.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        words.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_headings_are_found() {
        assert_eq!(links("a [b](c) ![d](e/f.svg) [g](#h)").collect::<Vec<_>>(), ["c", "e/f.svg", "#h"]);
        let headings = anchors("# zen\n## Which one, `now`?\ntext\n## 代价\n");
        assert_eq!(headings.collect::<Vec<_>>(), ["zen", "which-one-now", "代价"]);
    }
}

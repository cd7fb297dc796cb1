//! The answers for teachers: they repeat the questions under *Predict* of each README, in the same order.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::none;
use crate::workspace;

pub(super) fn each_prediction_has_its_answer() -> Result<()> {
    let english = workspace::root()?.join("xtask/teach/answers.md");
    let chinese = workspace::translation(&english);
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let mut differing = Vec::new();
    for package in &workspace::metadata()?.packages {
        let readme = package.folder().join("README.md");
        for (readme, heading, answers) in
            [(&readme, "Predict", &english), (&workspace::translation(&readme), "猜一猜", &chinese)]
        {
            let (asked, answered) = (questions(&read(readme)?, heading), answered(&read(answers)?, &package.name));
            if asked != answered {
                differing.push(format!("{}: asked {asked:#?}, answered {answered:#?}", readme.display()));
            }
        }
    }
    none(differing, "READMEs whose questions differ from those in the answers for teachers")
}

/// Returns the questions under the heading: one string for each paragraph or list item that asks something.
fn questions(readme: &str, heading: &str) -> Vec<String> {
    // Every second part is the inside of a code block, and is skipped.
    let prose: Vec<&str> = section(readme, heading).split("\n```").step_by(2).collect();
    let text = prose.join("\n\n").replace("\n- ", "\n\n");
    text.split("\n\n").map(asked_in).filter(|questions| !questions.is_empty()).collect()
}

/// Returns the sentences of a paragraph that are questions.
fn asked_in(paragraph: &str) -> String {
    let text = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let sentences = text.split_inclusive(". ").flat_map(|text| text.split_inclusive("? "));
    let sentences = sentences.flat_map(|text| text.split_inclusive(['。', '？']));
    sentences.filter(|sentence| sentence.trim_end().ends_with(['?', '？'])).collect::<String>().trim_end().to_owned()
}

/// Returns the question in italics at the start of each numbered answer under the heading.
fn answered(answers: &str, heading: &str) -> Vec<String> {
    let items = section(answers, heading).split("\n").collect::<Vec<_>>().join(" ");
    let items = items.split(". *").skip(1).filter_map(|item| item.split_once("* "));
    items.map(|(question, _)| question.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    let mut sections = text.split("\n## ").filter_map(|section| section.split_once('\n'));
    sections.find(|(title, _)| *title == heading).map(|(_, section)| section).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_those_that_are_answered() {
        let readme = "# a\n\n## Predict\n\nWith `?` here. One\nor two?\n\n```console\n$ say 'x?'\n```\n\n\
                      No. And three?\n\n- Four? `run it`. Five?\n- six\n\n## Limits\n\nSeven?\n";
        let answers = "# Answers\n\n## b\n\n1. *x?* y\n\n## a\n\n1. *One or\n   two?* This.\n2. *And three?* That. z\n\
                       3. *Four? Five?* Those.\n";
        assert_eq!(questions(readme, "Predict"), ["One or two?", "And three?", "Four? Five?"]);
        assert_eq!(answered(answers, "a"), questions(readme, "Predict"));
        assert_eq!(questions("\n## 猜一猜\n\n有一个。会怎样？两个呢？\n", "猜一猜"), ["会怎样？两个呢？"]);
    }
}

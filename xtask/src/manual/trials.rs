//! Tests that the pages and completions are complete, and that the programs that read them find no fault.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{CLIENT_PAGES, write};
use crate::harness::folder::Folder;
use crate::harness::group::run_within;
use crate::harness::{WAIT_LIMIT, tool};
use crate::servers::SERVERS;
use crate::trial::Trial;
use crate::workspace;

pub(crate) fn trials() -> Result<Vec<Trial>> {
    workspace::build()?;
    type Case = fn(&Path) -> Result<()>;
    let cases: [(&str, Case); 7] = [
        ("everything_is_written", everything_is_written),
        ("what_is_hidden_stays_hidden", what_is_hidden_stays_hidden),
        ("pages::groff", |folder| no_fault("groff", &["-man", "-Tutf8", "-ww", "-z"], &pages(folder)?)),
        ("pages::mandoc", |folder| no_fault("mandoc", &["-Tlint", "-Werror"], &pages(folder)?)),
        ("completions::bash", |folder| {
            no_fault("bash", &["-n"], &named(folder, |name| name.ends_with(".bash"))?)?;
            bash_completes(folder)
        }),
        ("completions::zsh", |folder| no_fault("zsh", &["-n"], &named(folder, |name| name.starts_with('_'))?)),
        ("completions::fish", |folder| {
            no_fault("fish", &["--no-execute"], &named(folder, |name| name.ends_with(".fish"))?)
        }),
    ];
    let trials = cases.into_iter().map(|(name, case)| {
        Trial::new(format!("manual::{name}"), move || {
            let folder = Folder::new()?;
            write(folder.path())?;
            case(folder.path())
        })
    });
    Ok(trials.collect())
}

/// Checks that every program and command has a page with all sections, and every program a completion for each shell.
fn everything_is_written(folder: &Path) -> Result<()> {
    let packages = SERVERS.iter().filter(|entry| entry.is_first_of_package()).map(|entry| entry.package);
    let programs: Vec<&str> = packages.chain(["zen-client"]).collect();
    let mut expected: Vec<String> = CLIENT_PAGES.map(str::to_owned).into();
    for program in &programs {
        expected.extend([
            format!("{program}.1"),
            format!("{program}.bash"),
            format!("{program}.fish"),
            format!("_{program}"),
        ]);
    }
    expected.sort_unstable();
    expected.dedup();
    let found: Vec<String> =
        named(folder, |_| true)?.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
    ensure!(found == expected, "found {found:?}, expected {expected:?}");
    for page in pages(folder)? {
        let text = fs::read_to_string(&page)?;
        let sections: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix(".SH ")).map(|title| title.trim_matches('"')).collect();
        let is_server = !text.contains(".TH \"ZEN-CLIENT");
        let last = if is_server {
            &["EXIT STATUS", "SIGNALS", "ENVIRONMENT", "SEE ALSO"][..]
        } else {
            &["EXIT STATUS", "SIGNALS", "SEE ALSO"]
        };
        let is_whole =
            sections.starts_with(&["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"]) && sections.ends_with(last);
        ensure!(is_whole, "{} has {sections:?}", page.display());
        ensure!(!is_server || text.contains("\\-\\-idle\\-timeout"), "{} lacks the common flags", page.display());
    }
    Ok(())
}

fn what_is_hidden_stays_hidden(folder: &Path) -> Result<()> {
    for file in named(folder, |_| true)? {
        let text = fs::read_to_string(&file)?.replace('\\', "");
        for hidden in ["--worker ", "--inherited", "--panic-on", "--abort-on", "selftest-server"] {
            ensure!(!text.contains(hidden), "{} mentions {hidden}", file.display());
        }
    }
    Ok(())
}

/// Fails if the program fails, or prints anything, for one of the files.
fn no_fault(program: &str, arguments: &[&str], files: &[PathBuf]) -> Result<()> {
    ensure!(!files.is_empty(), "there is no file to check");
    let program = tool(program)?;
    for file in files {
        let output = run_within(WAIT_LIMIT, Command::new(&program).args(arguments).arg(file).env("LC_ALL", "C.UTF-8"))?;
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        ensure!(output.status.success() && said.is_empty(), "{}: {said}", file.display());
    }
    Ok(())
}

/// Checks that Bash completes `zen-poll --sty` to `--style`.
fn bash_completes(folder: &Path) -> Result<()> {
    let script = r#"
        source zen-poll.bash
        completer=$(complete -p zen-poll | sed 's/.* -F \([^ ]*\) .*/\1/')
        COMP_WORDS=(zen-poll --sty) COMP_CWORD=1
        "$completer" zen-poll --sty zen-poll
        echo "${COMPREPLY[@]}""#;
    let output = run_within(WAIT_LIMIT, Command::new(tool("bash")?).args(["-c", script]).current_dir(folder))?;
    ensure!(output.stdout == b"--style\n", "{output:?}");
    Ok(())
}

fn pages(folder: &Path) -> Result<Vec<PathBuf>> {
    named(folder, |name| name.ends_with(".1"))
}

/// Returns the files whose names are selected, sorted by name.
fn named(folder: &Path, is_selected: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).context("nothing was written")? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(&is_selected) {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

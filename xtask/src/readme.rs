//! Runs the console blocks of every README and of the pages for teachers, and compares their output with what is
//! written there.
//!
//! A line `$ command` is run by a shell at the top of the checkout. The lines below it are its expected output, stdout
//! and stderr together. `[..]` stands for any text within a line, a line `...` for any number of lines. A line
//! `# exit: 1` gives the expected exit status, which otherwise is 0. A command that ends in ` &` is a server: the test
//! waits until its stdout matches, and kills it at the end of the block. A block with a program that this machine lacks
//! is skipped, except in CI.
//!
//! All blocks use the default port, so each runs in a network namespace of its own. Without the permission to create
//! namespaces, blocks run one after the other. Blocks whose output depends on time always do.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::harness::capture::Capture;
use crate::harness::group::{Group, run_within};
use crate::harness::network;
use crate::harness::{Missing, WAIT_LIMIT, lacks_io_uring, may_be_missing, tool, wait_for};
use crate::trial::Trial;
use crate::workspace;

/// Returns one test for each console block, named after its file and line.
pub(crate) fn trials() -> Result<Vec<Trial>> {
    let root = workspace::root()?;
    let has_hosts = network::in_own_network(|| Ok(())).is_ok();
    let mut trials = Vec::new();
    for file in workspace::pages()? {
        // A missing README is reported by the stage `tidy`.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        for block in blocks(&text) {
            let block = block.with_context(|| name.clone())?;
            let (name, is_timed) = (format!("readme::{name}:{}", block.line), block.is_timed());
            trials.push(match has_hosts && !is_timed {
                true => Trial::new(name, move || network::in_own_network(|| block.run())),
                false => Trial::new(name, move || block.run()).alone(),
            });
        }
    }
    if !trials.is_empty() {
        workspace::build()?;
    }
    Ok(trials)
}

/// A console block: its commands, in order.
#[derive(Debug, Default)]
struct Block {
    /// The line of its opening fence.
    line: usize,
    steps: Vec<Step>,
}

/// A command, with its expected output and exit status.
#[derive(Debug, Default)]
struct Step {
    command: String,
    output: Vec<String>,
    status: i32,
}

/// Returns all console blocks of a Markdown text.
fn blocks(text: &str) -> Vec<Result<Block>> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((n, line)) = lines.next() {
        if line.trim_start() == "```console" {
            let indent = line.len() - line.trim_start().len();
            let inner = lines.by_ref().map(|(_, line)| line.get(indent..).unwrap_or(line.trim_start()));
            blocks.push(Block::parse(n + 1, inner.take_while(|line| !line.starts_with("```"))));
        }
    }
    blocks
}

impl Block {
    fn parse<'a>(line: usize, inner: impl Iterator<Item = &'a str>) -> Result<Block> {
        let mut block = Block { line, steps: Vec::new() };
        for text in inner {
            if let Some(command) = text.strip_prefix("$ ") {
                block.steps.push(Step { command: without_remark(command).to_owned(), ..Step::default() });
                continue;
            }
            let step = block.steps.last_mut().with_context(|| format!("line {line}: output without a command"))?;
            // A command goes on after a backslash.
            if let Some(begun) = step.command.strip_suffix('\\') {
                step.command = format!("{begun}{}", text.trim_start().trim_start_matches("> "));
            } else if let Some(status) = text.strip_prefix("# exit: ") {
                step.status = status.trim().parse().with_context(|| format!("line {line}: exit status {status:?}"))?;
            } else {
                step.output.push(text.trim_end().to_owned());
            }
        }
        // The reader's shell has also started the server, for which `wait` would wait forever.
        let waits_for_all = block.steps.iter().any(|step| step.command.ends_with(" wait"));
        ensure!(!waits_for_all, "line {line}: `wait` waits for the server, too: use a subshell, or `wait $!`");
        Ok(block)
    }

    /// Returns whether the output depends on time, which a busy machine could change.
    fn is_timed(&self) -> bool {
        let is_timed = |word: &str| self.steps.iter().any(|step| step.command.contains(word));
        ["--timeout", "--delay", "sleep ", "-- load", "-- selftest"].into_iter().any(is_timed)
    }

    fn run(&self) -> Result<()> {
        let words = self.steps.iter().flat_map(|step| step.command.split_whitespace());
        words.filter(|word| may_be_missing(word)).try_for_each(|word| tool(word).map(drop))?;
        // A server of another test, or of the user, may still be exiting.
        let free = wait_for(WAIT_LIMIT, || TcpListener::bind((Ipv4Addr::LOCALHOST, DEFAULT_PORT)).ok());
        drop(free.with_context(|| format!("port {DEFAULT_PORT}, which the READMEs use, is in use"))?);
        let mut servers = Vec::new();
        for step in &self.steps {
            // This test is part of test-all, which must not start itself.
            if step.command.starts_with("cargo xtask test-all") {
                continue;
            }
            match step.command.strip_suffix(" &") {
                Some(server) => servers.push(step.start(server)),
                None => servers.push(step.run().map(|()| None)),
            }
            if let Some(Err(error)) = servers.pop_if(|server| server.is_err()) {
                return Err(error.context(format!("$ {}", step.command)));
            }
        }
        Ok(())
    }
}

impl Step {
    /// Runs the command to its end.
    fn run(&self) -> Result<()> {
        let output = run_within(LIMIT, shell(&format!("{{ {}\n}} 2>&1", self.command))?.stdin(Stdio::null()))?;
        let printed = String::from_utf8_lossy(&output.stdout);
        ensure!(self.is_met_by(&printed), "expected\n{}\n---- but the output is\n{printed}", self.output.join("\n"));
        let status = output.status;
        ensure!(status.code() == Some(self.status), "the command ended with {status}, not {}", self.status);
        Ok(())
    }

    /// Starts a server and waits for its expected output.
    fn start(&self, command: &str) -> Result<Option<Group>> {
        let mut group =
            Group::start(shell(command)?.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let stdout = Capture::of(group.child().stdout.take().context("stdout is not piped")?)?;
        let stderr = Capture::of(group.child().stderr.take().context("stderr is not piped")?)?;
        let is_ready = |printed: &[u8]| self.is_met_by(&String::from_utf8_lossy(printed)).then_some(());
        match stdout.wait_for(LIMIT, is_ready) {
            Some(()) if !self.output.is_empty() => Ok(Some(group)),
            Some(()) => bail!("a server prints `listening on …`: write that line below its command"),
            None if lacks_io_uring(&stderr.text()) => bail!(Missing("io_uring".to_owned())),
            None => {
                let (expected, output) = (self.output.join("\n"), stdout.text() + &stderr.text());
                bail!("expected\n{expected}\n---- but the output is\n{output}")
            }
        }
    }

    fn is_met_by(&self, printed: &str) -> bool {
        let expected: Vec<&str> = self.output.iter().map(String::as_str).collect();
        let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
        lines_match(&expected, &printed)
    }
}

/// Cuts off the remark: `cargo run -p zen-poll     # a remark`.
fn without_remark(command: &str) -> &str {
    command.split(" # ").next().unwrap_or(command).trim_end()
}

fn shell(command: &str) -> Result<Command> {
    let mut shell = Command::new("sh");
    // Cargo's progress messages do not belong to the output of a command.
    shell.args(["-c", command]).env("CARGO_TERM_QUIET", "true").env("NO_COLOR", "1").env_remove("RUST_LOG");
    shell.current_dir(workspace::root()?);
    Ok(shell)
}

fn lines_match(expected: &[&str], printed: &[&str]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((&"...", rest)) => (0..=printed.len()).any(|n| lines_match(rest, &printed[n..])),
        Some((first, rest)) => {
            printed.split_first().is_some_and(|(line, below)| line_matches(first, line) && lines_match(rest, below))
        }
    }
}

fn line_matches(expected: &str, line: &str) -> bool {
    let mut pieces = expected.split("[..]");
    let Some(mut rest) = pieces.next().and_then(|start| line.strip_prefix(start)) else { return false };
    let mut last = None;
    for piece in pieces {
        // Only the last piece must be at the end; an earlier one is taken where it first occurs.
        if let Some(middle) = last.replace(piece) {
            let Some(at) = rest.find(middle) else { return false };
            rest = &rest[at + middle.len()..];
        }
    }
    last.map_or(rest.is_empty(), |end| rest.ends_with(end))
}

/// The default port of every server and of the client.
const DEFAULT_PORT: u16 = 1060;

/// The time limit of a command. Binaries are built before, but `cargo run -p` may build one again with other features.
const LIMIT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_and_parsed() {
        let text = "a\n```console\n$ one &  \nlistening on [..]\n$ two \\\n  three   # remark\nout\n# exit: 1\n```\n\
                    ```sh\n$ four\n```\n";
        let blocks = blocks(text);
        let [Ok(block)] = &blocks[..] else { panic!("{blocks:?}") };
        assert_eq!((block.line, block.steps.len()), (2, 2));
        assert_eq!(block.steps[0].command, "one &");
        assert_eq!((block.steps[1].output.as_slice(), block.steps[1].status), (&["out".to_owned()][..], 1));
    }

    #[test]
    fn a_block_must_not_wait_for_its_server() {
        let is_allowed = |line: &str| blocks(&format!("```console\n$ serve &\n$ {line}\n```\n"))[0].is_ok();
        assert!(is_allowed("(ask & ask & wait)") && is_allowed("ask & ask; wait $!"));
        assert!(!is_allowed("ask & ask & wait") && !is_allowed("ask & ask; wait"));
    }

    #[test]
    fn output_is_compared_with_wildcards() {
        assert!(line_matches("listening on 127.0.0.1:[..]", "listening on 127.0.0.1:1060"));
        assert!(line_matches("[..] b [..] d", "a b c d"));
        assert!(!line_matches("[..] b [..] d", "a b c"));
        assert!(!line_matches("abc", "abcd"));
        assert!(!line_matches("ab[..]bc", "abc"));
        assert!(lines_match(&["a", "...", "z"], &["a", "b", "c", "z"]));
        assert!(lines_match(&["...", "z"], &["z"]));
        assert!(!lines_match(&["a"], &["a", "b"]));
        assert!(!lines_match(&["a", "b"], &["a"]));
    }
}

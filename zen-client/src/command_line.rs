//! The command line: all commands, and one line of explanation for a wrong one.

use std::io::Write;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

use crate::options::COMMANDS;
use crate::{ask, check, load, say, selftest, text};

/// Asks a zen server its questions, judges whether a server in any language keeps the protocol, and measures one
/// under load.
#[derive(Debug, Parser)]
#[command(name = "zen-client", version = zen_proto::VERSION)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct CommandLine {
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The options without a command.
    #[command(flatten)]
    pub(crate) ask: ask::Options,
}

/// The commands, each in a file of its own.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Judge whether a server keeps the protocol
    Check(check::Options),
    /// Send any text, and print what the server sends
    Say(say::Options),
    /// Ask a server many questions at the same time, and measure it
    Load(load::Options),
    /// Prove that `load` measures what it says
    Selftest,
    /// Print a report of `check --json` from stdin in another format
    #[command(hide = true)]
    Render(check::RenderOptions),
    /// The server that `selftest` stops
    #[command(name = selftest::SERVER_COMMAND, hide = true)]
    SelftestServer,
}

impl CommandLine {
    /// Parses the arguments of this process; an error is the status to exit with.
    pub(crate) fn of_process() -> Result<Self, ExitCode> {
        let command_line = Self::try_parse().map_err(|refusal| explain(&refusal))?;
        let contradiction = match &command_line.command {
            Some(Command::Load(options)) => options.contradiction(),
            _ => None,
        };
        match contradiction {
            Some(what) => Err(explain(&Self::command().error(ErrorKind::ValueValidation, what))),
            None => Ok(command_line),
        }
    }
}

/// Prints `--help` or `--version`, or one line about what is wrong. Returns the status to exit with.
fn explain(refusal: &clap::Error) -> ExitCode {
    let rendered = refusal.render().to_string();
    if !refusal.use_stderr() {
        // If the help cannot be printed, nothing is lost.
        let _ = text::stdout().write_all(rendered.as_bytes());
        return ExitCode::SUCCESS;
    }
    // The first paragraph of clap names the flag; the rest is usage and tips, for which there is `--help`.
    let first = rendered.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.split_whitespace().collect();
    let what = surplus_word(refusal).map_or_else(
        || words.join(" "),
        |word| format!("error: unexpected argument '{word}' after HOST (use -p for the port)"),
    );
    text::print_error(&format!("{what}; try --help"));
    ExitCode::from(2)
}

/// Returns the word after HOST, as in `zen-client localhost 1060`, which clap reports as an unknown command.
fn surplus_word(refusal: &clap::Error) -> Option<&str> {
    match refusal.get(ContextKind::InvalidSubcommand)? {
        ContextValue::String(word) if !COMMANDS.contains(&word.as_str()) => Some(word),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn no_command_is_missing() {
        let command_line = CommandLine::command();
        let commands = command_line.get_subcommands().filter(|command| !command.is_hide_set());
        assert!(commands.map(|command| command.get_name()).eq(COMMANDS));
    }
}

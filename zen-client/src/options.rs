//! The command line: what all commands share, and a wrong one explained in a single line.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::{ask, check, load, say, selftest, text};

/// Asks a zen server its questions, judges whether a server in any language keeps the protocol, and measures one
/// under load.
#[derive(Debug, Parser)]
#[command(name = "zen-client", version = zen_proto::VERSION, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct CommandLine {
    /// What to do instead of asking.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Without a command: ask.
    #[command(flatten)]
    pub(crate) ask: ask::Options,
}

/// One file for each.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Judge whether a server keeps the protocol
    Check(check::Options),
    /// Send any text, and print what comes
    Say(say::Options),
    /// Ask a server many questions at once, and measure it
    Load(load::Options),
    /// Prove that `load` measures what it says
    Selftest(selftest::Options),
    /// The server that `selftest` stops
    #[cfg(target_os = "linux")]
    #[command(name = selftest::SERVER_COMMAND, hide = true)]
    SelftestServer,
}

/// The server to connect to.
#[derive(Debug, Clone, Args)]
pub(crate) struct Server {
    /// Name or address of the server; of a name, every address is tried
    #[arg(value_name = "HOST", default_value = Server::DEFAULT_HOST, value_parser = host)]
    pub(crate) host: String,
    /// Port of the server
    #[arg(short, long, default_value_t = 1060, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
}

impl Server {
    pub(crate) const DEFAULT_HOST: &str = "127.0.0.1";
}

/// A name or an address, and not a command that came too late, as in `zen-client -p 1060 check`.
fn host(text: &str) -> Result<String, String> {
    if CommandLine::command().find_subcommand(text).is_some() {
        return Err("this is a command, and a command comes first".to_owned());
    }
    if text.is_empty() {
        return Err("a name or an address is missing".to_owned());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("digits alone are a port: use -p {text}"));
    }
    if without_brackets(text).parse().is_ok_and(|ip| lacks_zone(&SocketAddr::new(ip, 0))) {
        return Err("this address is link-local: append %INTERFACE, as in fe80::1%eth0".to_owned());
    }
    Ok(text.to_owned())
}

/// An IPv6 address may stand in brackets.
pub(crate) fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Returns true for a link-local address that does not say of which interface.
pub(crate) fn lacks_zone(address: &SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(address) if address.ip().is_unicast_link_local() && address.scope_id() == 0)
}

/// `10s`, `500ms` or `0`; what is wrong with any other text.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 10s, 500ms or 0"))
}

/// Prints `--help` and `--version`, or in one line what is wrong; the status to exit with.
pub(crate) fn explain(refusal: &clap::Error) -> ExitCode {
    let rendered = refusal.render().to_string();
    if !refusal.use_stderr() {
        // Who asked for help and does not read it misses nothing.
        let _ = text::stdout().write_all(rendered.as_bytes());
        return ExitCode::SUCCESS;
    }
    // clap's first paragraph names the flag; the rest is usage and tips, which `--help` tells better.
    let first = rendered.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.split_whitespace().collect();
    let what = surplus_word(refusal).map_or_else(
        || words.join(" "),
        |word| format!("error: unexpected argument '{word}' behind HOST (a port goes behind -p)"),
    );
    text::complain(&format!("{what}; try --help"));
    ExitCode::from(2)
}

/// The word behind HOST, as in `zen-client localhost 1060`: clap takes it for a command that came too late.
fn surplus_word(refusal: &clap::Error) -> Option<&str> {
    match refusal.get(ContextKind::InvalidSubcommand)? {
        ContextValue::String(word) if CommandLine::command().find_subcommand(word).is_none() => Some(word),
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
    fn only_a_zero_needs_no_unit() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "10", "-1s", "1.5.2s", "s", "99999999999999999999s", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}

//! The command line flags that all servers have in common.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Parser, ValueEnum};
use log::LevelFilter;

use super::addresses::{parse_host, parse_metrics_address};
use super::{inherited_fds, logging, stdout};

/// The flags of every server. A server with further flags flattens these into its own [`Arguments`].
#[derive(Debug, Clone, Parser)]
#[command(about = "Answers questions over TCP")]
pub struct Options {
    /// Name or address to listen on; '' is every address [default: 127.0.0.1]
    #[arg(value_parser = parse_host, conflicts_with = "inetd")]
    pub host: Option<String>,

    /// Port to listen on; 0 is any free port [default: 1060]
    #[arg(short, long, conflicts_with = "inetd")]
    pub port: Option<u16>,

    /// Work on each question by sleeping for this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "burn")]
    pub delay: Option<Duration>,

    /// Work on each question by computing for this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub burn: Option<Duration>,

    /// Close a client that begins no question for this time; 0 is never
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s")]
    pub idle_timeout: Duration,

    /// Close a client that does not finish a question in this time; reset one that reads no answer in it; 0 is never
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "10s")]
    pub question_timeout: Duration,

    /// Reject clients beyond this many in a process [default: 1024, or fewer if the limit of descriptors is too low]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<NonZeroUsize>,

    /// How many clients may wait in the kernel to be accepted
    #[arg(long, value_name = "N", default_value = "1024")]
    #[arg(value_parser = clap::value_parser!(u32).range(..=i32::MAX as i64))]
    pub backlog: u32,

    /// How long draining may take after SIGTERM or SIGINT; with 0 the clients are reset immediately
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "10s")]
    pub grace: Duration,

    /// Serve from N processes, and replace those that die
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub processes: Option<u16>,

    /// Stdin is the listener (wait) or the one client (nowait)
    #[arg(long, value_name = "wait|nowait")]
    pub inetd: Option<Inetd>,

    /// With --inetd wait: exit after this time without a client; 0 is never [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub idle_exit: Option<Duration>,

    /// Serve metrics for Prometheus at http://ADDRESS:PORT/metrics; a PORT alone is on 127.0.0.1
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = parse_metrics_address)]
    pub metrics: Option<SocketAddr>,

    /// Append the log to this file instead of stderr; SIGHUP reopens it
    #[arg(long, value_name = "PATH")]
    pub log_file: Option<PathBuf>,

    /// Log errors only
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Log each client (-v) and each question (-vv)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// This process was started by the server itself: a worker of --processes, or for one client (--inetd nowait)
    #[arg(long, hide = true)]
    pub(super) worker: bool,

    /// With --worker: the listener outlives the parent too
    #[arg(long, hide = true)]
    pub(super) inherited: bool,

    /// Panic at this question: a fault for tests
    #[arg(long, value_name = "QUESTION", hide = true)]
    pub(super) panic_on: Option<String>,

    /// Abort at this question: a fault for tests
    #[arg(long, value_name = "QUESTION", hide = true)]
    pub(super) abort_on: Option<String>,

    /// Panic at this question where no panic is caught: a fault for tests
    #[arg(long, value_name = "QUESTION", hide = true)]
    pub(super) panic_outside: Option<String>,
}

/// The kind of socket that inetd passed as stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Inetd {
    /// A listener, from which the server accepts clients.
    Wait,
    /// A client, the only one of this process.
    Nowait,
}

impl Options {
    /// Returns the settings of the log. `program` is the name of the server's crate.
    pub(super) fn log(&self, program: &'static str) -> logging::Config {
        let level = match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::Error,
            (false, 0) => LevelFilter::Info,
            (false, 1) => LevelFilter::Debug,
            (false, _) => LevelFilter::Trace,
        };
        logging::Config { file: self.log_file.clone(), level, program, is_worker: self.worker }
    }

    /// Returns an error message if flags contradict each other in a way that clap's attributes cannot express.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let inherits = inherited_fds::has_listen_fds() && self.inetd.is_none() && !self.worker;
        if inherits && (self.host.is_some() || self.port.is_some()) {
            Some("LISTEN_FDS hands over a listener: HOST and --port cannot be used with it")
        } else if self.processes.is_some() && self.inetd == Some(Inetd::Nowait) {
            Some("--processes cannot be used with --inetd nowait, which has one client")
        } else if self.metrics.is_some() && self.inetd == Some(Inetd::Nowait) {
            Some("--metrics cannot be used with --inetd nowait, which has one client")
        } else if self.idle_exit.is_some() && self.inetd != Some(Inetd::Wait) {
            Some("--idle-exit can only be used with --inetd wait")
        } else {
            None
        }
    }
}

/// The arguments of a server: its own flags and the common ones.
pub trait Arguments: Parser {
    /// Returns the common flags.
    fn common(&self) -> &Options;

    /// Returns an error message if flags contradict each other.
    fn contradiction(&self) -> Option<&'static str> {
        None
    }
}

impl Arguments for Options {
    fn common(&self) -> &Options {
        self
    }
}

/// Parses the arguments of this process. Ends the process if they are wrong or ask for help.
pub(super) fn parse<A: Arguments>() -> A {
    let arguments = A::try_parse().unwrap_or_else(|error| print_and_exit(&error));
    match arguments.common().contradiction().or_else(|| arguments.contradiction()) {
        Some(text) => print_and_exit(&A::command().error(ErrorKind::ArgumentConflict, text)),
        None => arguments,
    }
}

/// Prints help to stdout (status 0), or an error as one line to stderr (status 2), and ends the process.
fn print_and_exit(error: &clap::Error) -> ! {
    if !error.use_stderr() {
        let _ = stdout::announce(&error.render().to_string()); // an error means that the reader has gone
        std::process::exit(0);
    }
    let text = error.render().to_string();
    let line: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    logging::print_error(&format!("{}; try --help", line.join(" ")));
    std::process::exit(2);
}

/// Parses a duration of the command line: `10s`, `500ms`, or `0`.
///
/// # Errors
///
/// The text is not a duration. A number without a unit is an error, except `0`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|_| "a duration is like 10s, 500ms or 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert!(["10", "00", "", "-1s", "1 parsec", "0.5"].iter().all(|text| parse_duration(text).is_err()));
    }
}

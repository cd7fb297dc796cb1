//! The command line of zen-threaded: which threads there are.

use std::num::NonZeroUsize;

use clap::{Parser, ValueEnum};
use zen_proto::server::{self, Options};

/// Serves the aphorisms from threads that serve one client each.
#[derive(Debug, Parser)]
#[command(version = zen_proto::VERSION)]
pub(crate) struct Arguments {
    /// A few threads that share accept, or a thread for each connection
    #[arg(long, value_enum, default_value = "workers", value_name = "workers|per-connection")]
    pub(crate) mode: Mode,

    /// How many threads share accept [default: 4]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) common: Options,
}

/// Which threads there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// A few, that share accept.
    Workers,
    /// One for each connection.
    PerConnection,
}

impl Arguments {
    pub(crate) fn workers(&self) -> usize {
        self.workers.map_or(WORKERS, NonZeroUsize::get)
    }

    /// How many clients are served at once; `None`: up to `--max-connections`.
    pub(crate) fn at_once(&self) -> Option<usize> {
        (self.mode == Mode::Workers).then(|| self.workers())
    }
}

impl server::Arguments for Arguments {
    fn common(&self) -> &Options {
        &self.common
    }

    fn contradiction(&self) -> Option<&'static str> {
        (self.mode == Mode::PerConnection && self.workers.is_some())
            .then_some("--workers cannot be used with --mode per-connection")
    }
}

/// As many as the ancestor's `srv_threaded` has.
const WORKERS: usize = 4;

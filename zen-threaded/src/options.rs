//! The command line of zen-threaded: the flags that choose the threads.

use std::num::NonZeroUsize;

use clap::{Parser, ValueEnum};
use zen_proto::server::{self, Options};

/// Serves the aphorisms from threads that serve one client each.
#[derive(Debug, Parser)]
#[command(version = zen_proto::VERSION)]
pub(crate) struct Arguments {
    /// A few threads that share accept, a thread for each connection, or an acceptor with a queue and a few threads
    #[arg(long, value_enum, default_value = "workers", value_name = "workers|per-connection|pool")]
    pub(crate) mode: Mode,

    /// How many threads serve clients, with --mode workers or pool [default: 4]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,

    /// How many accepted clients may wait for a thread, with --mode pool; the next is rejected [default: 16]
    #[arg(long, value_name = "N")]
    queue: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) common: Options,
}

/// The threads of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// A few workers that share accept.
    Workers,
    /// One thread for each connection.
    PerConnection,
    /// One thread that accepts, and a few workers that take clients from a queue.
    Pool,
}

impl Arguments {
    pub(crate) fn workers(&self) -> usize {
        self.workers.map_or(WORKERS, NonZeroUsize::get)
    }

    /// Returns how many clients have a permit at once. `None` means as many as `--max-connections`.
    pub(crate) fn at_once(&self) -> Option<usize> {
        match self.mode {
            Mode::Workers => Some(self.workers()),
            Mode::PerConnection => None,
            Mode::Pool => {
                let held = self.workers().saturating_add(self.queue.map_or(QUEUE, NonZeroUsize::get));
                Some(self.common.max_connections.map_or(held, |most| held.min(most.get())))
            }
        }
    }
}

impl server::Arguments for Arguments {
    fn common(&self) -> &Options {
        &self.common
    }

    fn contradiction(&self) -> Option<&'static str> {
        match self.mode {
            Mode::PerConnection if self.workers.is_some() => {
                Some("--workers cannot be used with --mode per-connection")
            }
            Mode::Workers | Mode::PerConnection if self.queue.is_some() => {
                Some("--queue can only be used with --mode pool")
            }
            _ => None,
        }
    }
}

/// The default number of workers, as in the book's `srv_threaded`.
const WORKERS: usize = 4;

/// The default length of the queue: four clients for each worker, enough for a burst that is soon served.
const QUEUE: usize = 16;

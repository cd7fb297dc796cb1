//! The command line of zen-threaded: the mode, the number of workers, and the length of the queue.

use std::num::NonZeroUsize;

use clap::{Parser, ValueEnum};
use zen_proto::server::{self, Options};

/// Serves the aphorisms from threads that serve one client each.
#[derive(Debug, Parser)]
#[command(version = zen_proto::VERSION)]
pub(crate) struct Arguments {
    /// A few threads with one listener, a thread or a process for each connection, or a few threads with a queue
    #[arg(long, value_enum, default_value = "workers", value_name = "workers|per-connection|per-process|pool")]
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

/// The kind of thread or process that serves each client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// A few workers that call accept() on one listener.
    Workers,
    /// One thread for each connection.
    PerConnection,
    /// One process for each connection.
    PerProcess,
    /// One thread that accepts, and a few workers that take clients from a queue.
    Pool,
}

impl Arguments {
    pub(crate) fn workers(&self) -> usize {
        self.workers.map_or(WORKERS, NonZeroUsize::get)
    }

    /// Returns the limit of accepted clients at a time, queued ones included. `None` leaves it to `--max-connections`.
    pub(crate) fn capacity(&self) -> Option<usize> {
        match self.mode {
            Mode::Workers => Some(self.workers()),
            Mode::PerConnection | Mode::PerProcess => None,
            Mode::Pool => {
                let all = self.workers().saturating_add(self.queue.map_or(QUEUE, NonZeroUsize::get));
                Some(self.common.max_connections.map_or(all, |most| all.min(most.get())))
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
            Mode::PerProcess if self.workers.is_some() => Some("--workers cannot be used with --mode per-process"),
            Mode::PerProcess if self.common.processes.is_some() => {
                Some("--processes cannot be used with --mode per-process, which has a process for each connection")
            }
            Mode::Workers | Mode::PerConnection | Mode::PerProcess if self.queue.is_some() => {
                Some("--queue can only be used with --mode pool")
            }
            _ => None,
        }
    }
}

/// The default number of workers, as in `srv_threaded` of *Foundations of Python Network Programming*.
const WORKERS: usize = 4;

/// The default length of the queue: four clients for each worker, enough for a burst that is soon served.
const QUEUE: usize = 16;

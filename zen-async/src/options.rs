//! The command line of zen-async: the runtime, the number of threads, and the way in which answers are computed.

use std::num::NonZeroUsize;

use clap::{Parser, ValueEnum};
use zen_proto::server::{self, Options};

/// Serves the aphorisms from async tasks, one for each client.
#[derive(Debug, Parser)]
#[command(version = zen_proto::VERSION)]
pub(crate) struct Arguments {
    /// The runtime that runs the tasks
    #[arg(long, value_enum, default_value = "smol", value_name = "smol|async-std")]
    pub(crate) runtime: Runtime,

    /// Number of threads that run tasks
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) threads: NonZeroUsize,

    /// Compute answers in the blocking pool, so that no other task waits
    #[arg(long)]
    offload: bool,

    /// Make --delay a timer that the task awaits
    #[arg(long = "await", conflicts_with_all = ["offload", "burn"])]
    is_awaited: bool,

    #[command(flatten)]
    pub(crate) common: Options,
}

/// The way in which an answer is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answering {
    /// In the task, whose thread runs no other task meanwhile.
    InTask,
    /// In the task, which first awaits a timer.
    Awaited,
    /// On a thread of the runtime's blocking pool.
    InPool,
}

impl Arguments {
    pub(crate) fn answering(&self) -> Answering {
        match (self.offload, self.is_awaited) {
            (true, _) => Answering::InPool,
            (_, true) => Answering::Awaited,
            _ => Answering::InTask,
        }
    }
}

/// The runtime that runs the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// smol.
    Smol,
    /// async-std, which is discontinued.
    AsyncStd,
}

impl server::Arguments for Arguments {
    fn common(&self) -> &Options {
        &self.common
    }

    fn contradiction(&self) -> Option<&'static str> {
        let other_count = std::env::var_os(THREAD_COUNT).is_some_and(|count| count != *self.threads.to_string());
        (self.runtime == Runtime::AsyncStd && other_count)
            .then_some("ASYNC_STD_THREAD_COUNT is set to another number than --threads: unset it")
    }
}

/// The environment variable from which async-std reads its number of threads.
const THREAD_COUNT: &str = "ASYNC_STD_THREAD_COUNT";

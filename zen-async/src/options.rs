//! The command line of zen-async: which runtime, on how many threads.

use std::num::NonZeroUsize;

use clap::{Parser, ValueEnum};
use zen_proto::server::{self, Options};

/// Serves the aphorisms from coroutines, one for each client.
#[derive(Debug, Parser)]
#[command(version = zen_proto::VERSION)]
pub(crate) struct Arguments {
    /// Who runs the coroutines
    #[arg(long, value_enum, default_value = "smol", value_name = "smol|async-std")]
    pub(crate) runtime: Runtime,

    /// On how many threads
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) threads: NonZeroUsize,

    /// Think in other threads, where that keeps no coroutine waiting
    #[arg(long)]
    pub(crate) offload: bool,

    #[command(flatten)]
    pub(crate) common: Options,
}

/// Who runs the coroutines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// smol.
    Smol,
    /// async-std, which is not developed any more.
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

/// What async-std itself would take its number of threads from.
const THREAD_COUNT: &str = "ASYNC_STD_THREAD_COUNT";

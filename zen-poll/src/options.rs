//! The command line of zen-poll: `--loops`, `--style`, and the options that all servers have.

use std::num::NonZeroUsize;

use clap::{Parser, ValueEnum};
use zen_proto::server::{self, Options};

/// Serves the aphorisms from a loop that waits for readiness.
#[derive(Debug, Parser)]
#[command(version = zen_proto::VERSION)]
pub(crate) struct Arguments {
    /// Number of loops, each in a thread of its own
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) loops: NonZeroUsize,

    /// Style of a client's protocol: asyncio's data_received, or asynchat's found_terminator
    #[arg(long, value_enum, default_value = "callback", value_name = "callback|chat")]
    pub(crate) style: Style,

    #[command(flatten)]
    pub(crate) common: Options,
}

/// How received bytes are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Style {
    /// A method receives all bytes of a read, as in asyncio.
    Callback,
    /// One method receives each piece of a question, and another is called at its end, as in asynchat.
    Chat,
}

impl server::Arguments for Arguments {
    fn common(&self) -> &Options {
        &self.common
    }
}

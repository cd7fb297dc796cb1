//! The command line of zen-poll: the number of loops, and their style.

use std::num::NonZeroUsize;

use clap::{Parser, ValueEnum};
use zen_proto::server::{self, Options};

/// Serves the aphorisms from a loop that waits for readiness.
#[derive(Debug, Parser)]
#[command(version = zen_proto::VERSION)]
pub(crate) struct Arguments {
    /// How many threads run a loop each
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) loops: NonZeroUsize,

    /// How the protocol is told what happened: as in asyncio, or as in asynchat
    #[arg(long, value_enum, default_value = "callback", value_name = "callback|chat")]
    pub(crate) style: Style,

    #[command(flatten)]
    pub(crate) common: Options,
}

/// The form in which a protocol is told what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Style {
    /// Received bytes, as in asyncio.
    Callback,
    /// A piece of a question, or its end, as in asynchat.
    Chat,
}

impl server::Arguments for Arguments {
    fn common(&self) -> &Options {
        &self.common
    }
}

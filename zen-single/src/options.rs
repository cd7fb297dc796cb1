//! The command line of zen-single: the common flags and no others.

use clap::Parser;
use zen_proto::server::{self, Options};

/// Serves the aphorisms from one thread, to one client at a time.
#[derive(Debug, Parser)]
#[command(version = zen_proto::VERSION)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Options,
}

impl server::Arguments for Arguments {
    fn common(&self) -> &Options {
        &self.common
    }
}

//! What stands in for `load` and `selftest` where there is no epoll.

#![allow(dead_code)] // each of the two modules uses one function

use std::process::ExitCode;

use anyhow::{Result, bail};

/// Whatever is said.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(hide = true, allow_hyphen_values = true, trailing_var_arg = true)]
    all: Vec<String>,
}

impl Options {
    pub(crate) fn contradiction(&self) -> Option<String> {
        None
    }
}

pub(crate) fn load(_: &Options) -> Result<ExitCode> {
    bail!("`load` needs epoll: run it on Linux, the server may be elsewhere")
}

pub(crate) fn selftest(_: &Options) -> Result<ExitCode> {
    bail!("`selftest` needs epoll: run it on Linux")
}

//! Writes the manual pages of zen-client, and its completions for bash, zsh and fish, into a folder.
//!
//! A program of its own, of the same modules as `main.rs`, so that the client itself need not carry the code for manual
//! pages. `cargo xtask manual` runs it and adds sections that no command line knows.

#![forbid(unsafe_code)]
#![allow(dead_code, reason = "of the modules only the command line is used")]

mod ask;
mod check;
mod command_line;
mod connect;
mod load;
mod options;
mod pages;
mod pause;
mod say;
mod selftest;
mod text;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::CommandFactory;

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("name the folder to write to")?);
    pages::write(&command_line::CommandLine::command(), &folder)
}

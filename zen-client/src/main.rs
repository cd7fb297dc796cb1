//! Asks a zen server its questions, judges whether a server in any language keeps the protocol, and measures one
//! under load.
//!
//! # Run
//!
//! ```console
//! $ cargo run -p zen-client
//! $ cargo run -p zen-client -- check
//! $ cargo run -p zen-client -- say 'Simple is better than?'
//! $ cargo run -p zen-client -- load
//! ```
//!
//! A server must be running, for example `cargo run -p zen-poll`. `--help` lists the flags of each command. The exit
//! status is 0 if every answer was right, 1 if not, and 2 if the command line was wrong.
//!
//! # How it works
//!
//! 1. `connect.rs` tries every address of a name.
//! 2. `ask.rs` sends one question, reads up to the first `.`, compares, and sends the next. A failed question is asked
//!    again (`--retries`) at the next address, which is safe because an answer changes nothing on the server.
//!    `say.rs` sends any bytes and compares nothing.
//! 3. `check.rs` runs the cases of `check/cases.rs` one after the other: small functions that act as clients, friendly
//!    or not, and compare every byte with what the protocol promises. `check/client.rs` never waits beyond a case's
//!    deadline, and reads while it sends, as rule 2 demands.
//! 4. `load/generator.rs` is an epoll loop per thread: one `recv` and one `send` for each answer. `load/schedule.rs`
//!    knows what is due, `load/tally.rs` counts.
//! 5. `selftest.rs` runs `load` against servers whose behavior is known.
//!
//! # Limits
//!
//! `check` sees only what the network shows: a server may leak memory and still pass. `load` shares the machine with
//! its server, and says so when it was itself the bottleneck. Only Linux is tested.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ask;
mod check;
mod command_line;
mod connect;
mod load;
mod options;
mod pause;
mod say;
mod selftest;
mod text;

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGXFSZ;

use command_line::{Command, CommandLine};

fn main() -> ExitCode {
    // Without a handler SIGXFSZ ends the process; with one, a write beyond RLIMIT_FSIZE is an error like any other.
    static IS_REACHED: AtomicBool = AtomicBool::new(false);
    let _ = signal_hook::flag::register(SIGXFSZ, &IS_REACHED);
    let command_line = match CommandLine::of_process() {
        Ok(command_line) => command_line,
        Err(status) => return status,
    };
    let outcome = match command_line.command {
        None => ask::ask(&command_line.ask),
        Some(Command::Check(options)) => check::check(&options),
        Some(Command::Render(options)) => check::render(&options),
        Some(Command::Say(options)) => say::say(&options),
        Some(Command::Load(options)) => load::load(&options),
        Some(Command::Selftest) => selftest::selftest(),
        Some(Command::SelftestServer) => selftest::serve(),
    };
    outcome.unwrap_or_else(|error| {
        if text::is_broken_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        text::print_error(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

//! Everything that runs across the servers of zen: tests, measurements, experiments.
//!
//! ```console
//! $ cargo xtask test-all            # everything
//! $ cargo xtask test-all poll::     # what has `poll::` in its name
//! $ cargo xtask test-all --list
//! $ cargo xtask lab --list          # the book's claims, as experiments
//! $ cargo xtask trace single poll   # what each thread waited for, drawn
//! $ cargo xtask play                # a page that asks what will happen, then plays the trace
//! $ cargo xtask bench --quick       # what an answer costs
//! $ cargo xtask choose --clients 5000 --busy 2% --rate 2000 --slo 'p99<50ms'   # which architecture
//! $ cargo xtask challenge -- COMMAND {port}   # your own server next to ours
//! $ cargo xtask deploy test         # deployed with the real programs: systemd, inetd, HAProxy, Prometheus …
//! $ cargo xtask manual              # manual pages and completions
//! $ cargo xtask package             # what a release publishes, tried
//! $ cargo xtask soak
//! $ cargo xtask fuzz
//! ```
//!
//! A task is a module with a struct of flags, which clap turns into a subcommand. The servers are started as
//! binaries. Of the workspace, only `zen-proto` is linked: the protocol, and its feature `server` for the manual pages.

#![forbid(unsafe_code)]

mod bench;
mod challenge;
mod deploy;
mod fuzz;
mod harness;
mod lab;
mod manual;
mod matrix;
mod package;
mod play;
mod readme;
mod servers;
mod signals;
mod soak;
mod svg;
mod test_all;
mod tidy;
mod trace;
mod trial;
mod workspace;

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use clap::error::ErrorKind;
use signal_hook::consts::SIGXFSZ;

/// Runs one of the project's tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version = zen_proto::VERSION)]
enum Task {
    TestAll(test_all::Flags),
    Fuzz(fuzz::Flags),
    Soak(soak::Flags),
    Lab(lab::Flags),
    Manual(manual::Flags),
    Package(package::Flags),
    Trace(trace::Flags),
    Play(play::Flags),
    Challenge(challenge::Flags),
    #[command(hide = true)]
    Blocked(challenge::BlockedFlags),
    Bench(bench::Flags),
    Choose(bench::choose::Flags),
    Deploy(deploy::Flags),
}

fn main() -> ExitCode {
    // Without a handler SIGXFSZ ends the process; with one, a write beyond RLIMIT_FSIZE is an error like any other.
    static IS_REACHED: AtomicBool = AtomicBool::new(false);
    let _ = signal_hook::flag::register(SIGXFSZ, &IS_REACHED);
    // An error is ignored: a stream that is closed cannot be made blocking, and need not be.
    let _ = make_blocking(io::stdout()).and_then(|()| make_blocking(io::stderr()));
    let done = harness::group::set_up_cleanup().and_then(|()| match parse() {
        Task::TestAll(flags) => test_all::run(&flags),
        Task::Fuzz(flags) => fuzz::run(&flags),
        Task::Soak(flags) => soak::run(&flags),
        Task::Lab(flags) => lab::run(&flags),
        Task::Manual(flags) => manual::run(&flags),
        Task::Package(flags) => package::run(&flags),
        Task::Trace(flags) => trace::run(&flags),
        Task::Play(flags) => play::run(&flags),
        Task::Challenge(flags) => challenge::run(&flags),
        Task::Blocked(flags) => challenge::print_blocked(&flags),
        Task::Bench(flags) => bench::run(&flags),
        Task::Choose(flags) => bench::choose::run(&flags),
        Task::Deploy(flags) => deploy::run(&flags),
    });
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Parses the command line. Ends the process if it is wrong, with one line on stderr and status 2, or asks for help.
fn parse() -> Task {
    Task::try_parse().unwrap_or_else(|error| {
        if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            error.exit();
        }
        eprintln!("{}; try --help", first_line(&error));
        std::process::exit(2);
    })
}

/// Returns what is wrong, without the usage that clap adds.
fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    lines.join(" ")
}

/// Makes `stream` blocking. A parent such as Node may have made it non-blocking, and then lines would be lost: those of
/// this task, and those of cargo and other programs that share the stream.
fn make_blocking(stream: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(stream, false)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::thread;

    use super::*;

    #[test]
    fn a_wrong_command_line_is_reported_in_one_line() {
        let message = |line: &str| {
            let error = Task::try_parse_from(line.split(' ')).err();
            error.map(|error| first_line(&error)).unwrap_or_default()
        };
        let wrong = message("xtask choose --rate x");
        assert_eq!(wrong, "error: invalid value 'x' for '--rate <N>': invalid digit found in string");
        assert_eq!(message("xtask no-task"), "error: unrecognized subcommand 'no-task'");
        let missing = message("xtask choose --clients 1");
        assert!(
            missing.starts_with("error: the following required arguments were not provided: --rate <N>"),
            "{missing}"
        );
    }

    #[test]
    fn a_non_blocking_stream_is_made_blocking() -> io::Result<()> {
        let (mut reader, mut writer) = io::pipe()?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        make_blocking(&writer)?;
        // More than a pipe holds.
        let write = thread::spawn(move || writer.write_all(&[b'x'; 1 << 18]));
        let mut received = Vec::new();
        reader.read_to_end(&mut received)?;
        assert_eq!(received.len(), 1 << 18);
        write.join().expect("it does not panic")
    }
}

//! A stderr that is closed, full, never read or without a reader: clients are served as usual, even at -vv.

use anyhow::{Context, Result};

use super::super::{Case, Ctx, case};
use super::load;

/// Returns a case under a shell that changes stderr before it executes the server.
const fn with_stderr(name: &'static str, wrapper: &'static [&'static str]) -> Case {
    case(name, served_as_before).under(wrapper).arguments(&["-vv"])
}

pub(crate) const CASES: &[Case] = &[
    with_stderr("stderr_closed", &["sh", "-c", "exec \"$@\" 2>&-", "sh"]),
    with_stderr("stderr_and_stdin_closed", &["sh", "-c", "exec \"$@\" 2>&- <&-", "sh"]),
    with_stderr("stderr_is_a_full_disk", &["sh", "-c", "exec \"$@\" 2>/dev/full", "sh"]),
    with_stderr("stderr_without_a_reader", &["sh", "-c", WITHOUT_READER, "sh"]),
    with_stderr("stderr_is_stuck", &["sh", "-c", STUCK, "sh"]),
    with_stderr("stderr_at_its_limit", &["sh", "-c", AT_LIMIT, "sh"]),
    case("log_file_is_a_full_disk", served_as_before).arguments(&["-vv", "--log-file", "/dev/full"]),
];

fn served_as_before(ctx: &mut Ctx) -> Result<()> {
    load(ctx).context("under load")?;
    ctx.client()?.ask_all()?;
    // Each unusual ending is a line of the log.
    let mut client = ctx.client()?;
    client.send(&[b'x'; 257])?;
    client.expect(b"Error: question too long.")?;
    client.expect_end()
}

/// A pipe whose reader has exited.
const WITHOUT_READER: &str = "d=$(mktemp -d); mkfifo $d/p; true <$d/p & exec 2>$d/p; wait; rm -r $d; exec \"$@\"";

/// A pipe that is never read. Opened for reading and writing, it neither waits for a reader nor breaks.
const STUCK: &str = "d=$(mktemp -d); mkfifo $d/p; exec 2<>$d/p; rm -r $d; exec \"$@\"";

/// A file that takes only the first lines of -vv: a write beyond RLIMIT_FSIZE raises SIGXFSZ.
const AT_LIMIT: &str = "f=$(mktemp); exec 2>>$f; rm $f; ulimit -f 16; exec \"$@\"";

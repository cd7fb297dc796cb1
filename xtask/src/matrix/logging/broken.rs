//! A stderr that is closed, full, stuck or gone: all is as before for the clients, also when there is much to say.

use anyhow::{Context, Result};

use super::super::{Case, Ctx, case};
use super::load;

/// Under a shell that does something to stderr before it becomes the server.
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
    // Unusual endings are worth a line each.
    let mut client = ctx.client()?;
    client.send(&[b'x'; 257])?;
    client.expect(b"Error: question too long.")?;
    client.expect_end()
}

/// A pipe whose reader has gone.
const WITHOUT_READER: &str = "d=$(mktemp -d); mkfifo $d/p; true <$d/p & exec 2>$d/p; wait; rm -r $d; exec \"$@\"";

/// A pipe that nobody reads. (Opened for both, it waits for nobody; and as there is a reader, it does not break.)
const STUCK: &str = "d=$(mktemp -d); mkfifo $d/p; exec 2<>$d/p; rm -r $d; exec \"$@\"";

/// A file that takes the first lines of -vv: a write beyond RLIMIT_FSIZE raises SIGXFSZ.
const AT_LIMIT: &str = "f=$(mktemp); exec 2>>$f; rm $f; ulimit -f 16; exec \"$@\"";

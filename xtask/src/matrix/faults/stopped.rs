//! The server itself is stopped for a while, as when a laptop sleeps.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::{Case, Ctx, answered, case, served_clients};
use crate::harness::client::APHORISMS;

pub(crate) const CASES: &[Case] = &[case("stopped_for_twice_the_timeout", stopped_for_twice_the_timeout).arguments(&[
    "--idle-timeout",
    "500ms",
    "--question-timeout",
    "500ms",
])];

/// A client that completed its question meanwhile is answered; one that did not is closed, because its time has passed.
fn stopped_for_twice_the_timeout(ctx: &mut Ctx) -> Result<()> {
    // Where one client is served at a time, only the first is connected; the others connect while the server is
    // stopped.
    let mut connected = served_clients(ctx, 3)?.into_iter();
    let (mut finishing, mut starting, mut slow) =
        (connected.next().context("a client")?, connected.next(), connected.next());
    finishing.send(b"Simple is bet")?;
    slow.iter_mut().try_for_each(|client| client.send(b"Simple is bet"))?;
    ctx.server.stop_all()?;
    thread::sleep(2 * TIMEOUT);
    finishing.send(b"ter than?")?;
    starting.iter_mut().try_for_each(|client| client.send(APHORISMS[0].0))?;
    let mut coming = ctx.server.asking_client()?;
    ctx.server.signal_all(Signal::CONT)?;
    finishing.expect(b"complex.").context("the client completed its question meanwhile")?;
    drop(finishing);
    starting.iter_mut().try_for_each(answered).context("the client asked meanwhile")?;
    slow.iter_mut().try_for_each(|client| client.expect_end()).context("the client did not complete its question")?;
    drop((starting, slow));
    answered(&mut coming).context("the client connected meanwhile")
}

/// Both the idle timeout and the question timeout.
const TIMEOUT: Duration = Duration::from_millis(500);

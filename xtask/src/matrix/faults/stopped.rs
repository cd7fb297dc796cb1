//! The server is itself stopped for a while, as when a laptop sleeps.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::{Case, Ctx, answered, asking, case, served_clients};
use crate::harness::client::APHORISMS;

pub(crate) const CASES: &[Case] = &[case("stopped_for_twice_the_time_out", stopped_for_twice_the_time_out)
    .arguments(&["--idle-timeout", "500ms", "--question-timeout", "500ms"])];

/// Who finished a question meanwhile is answered, late as it is; who did not is cut, for that time has passed.
fn stopped_for_twice_the_time_out(ctx: &mut Ctx) -> Result<()> {
    // Where one client is served at a time there is only the first; the others come while the server is stopped.
    let mut here = served_clients(ctx, 3)?.into_iter();
    let (mut finishing, mut starting, mut slow) = (here.next().context("a client")?, here.next(), here.next());
    finishing.send(b"Simple is bet")?;
    slow.iter_mut().try_for_each(|client| client.send(b"Simple is bet"))?;
    ctx.server.signal_all(Signal::STOP)?;
    thread::sleep(2 * TIME_OUT);
    finishing.send(b"ter than?")?;
    starting.iter_mut().try_for_each(|client| client.send(APHORISMS[0].0))?;
    let mut coming = asking(ctx)?;
    ctx.server.signal_all(Signal::CONT)?;
    finishing.expect(b"complex.").context("it finished its question meanwhile")?;
    drop(finishing);
    starting.iter_mut().try_for_each(answered).context("it asked meanwhile")?;
    slow.iter_mut().try_for_each(|client| client.expect_end()).context("it did not finish")?;
    drop((starting, slow));
    answered(&mut coming).context("it came meanwhile")
}

/// Both of them.
const TIME_OUT: Duration = Duration::from_millis(500);

//! A Python client in the manner of the ancestor's converses with every server: the protocol is still the same.

use std::process::Command;

use anyhow::{Result, ensure};

use super::{Case, Ctx, case};
use crate::harness::group::run_within;
use crate::harness::{PATIENCE, shown, tool};

pub(crate) const CASES: &[Case] = &[case("python_client", python_client)];

fn python_client(ctx: &mut Ctx) -> Result<()> {
    let address = ctx.server.address();
    let mut python = Command::new(tool("python3")?);
    python.args(["-c", CLIENT, &address.ip().to_string(), &address.port().to_string()]);
    let output = run_within(PATIENCE, &mut python)?;
    let expected =
        b"Beautiful is better than? ugly.\nExplicit is better than? implicit.\nSimple is better than? complex.\n";
    ensure!(output.stdout == expected, "it printed {}, and on stderr {}", shown(&output.stdout), shown(&output.stderr));
    Ok(())
}

const CLIENT: &str = include_str!("ancestor.py");

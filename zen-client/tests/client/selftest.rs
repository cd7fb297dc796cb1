//! `zen-client selftest` passes. That it would notice a broken generator is shown by the unit tests in `selftest.rs`.

use crate::running::{client, text};

#[test]
fn the_selftest_passes() {
    let output = client("selftest");
    let stdout = text(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{stdout}");
    assert!(stdout.lines().all(|line| !line.starts_with("FAILED")), "{stdout}");
    assert!(stdout.ends_with("\n10 passed, 0 failed\n"), "{stdout}");
}

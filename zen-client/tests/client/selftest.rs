//! `zen-client selftest` passes, and fails when the instrument is broken on purpose.

use std::sync::Mutex;

use crate::running::{client, text};

/// The names of the checks that failed.
fn failed(arguments: &str) -> Vec<String> {
    // One after the other: they look at time.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let output = client(&format!("selftest {arguments}"));
    let stdout = text(&output.stdout);
    let failed: Vec<_> = stdout.lines().filter_map(|line| line.strip_prefix("FAILED ")).collect();
    assert!(output.stderr.is_empty(), "{output:?}");
    assert_eq!(output.status.code(), Some(i32::from(!failed.is_empty())), "{stdout}");
    assert!(stdout.ends_with(&format!("\n{} passed, {} failed\n", 9 - failed.len(), failed.len())), "{stdout}");
    failed.iter().map(|line| line.split(':').next().unwrap().to_owned()).collect()
}

#[test]
fn the_instrument_is_sound() {
    assert_eq!(failed(""), [""; 0]);
}

#[test]
fn latency_from_the_actual_send_is_noticed() {
    assert_eq!(failed("--sabotage actual-send"), ["freeze-in-response-time", "retries-counted"]);
}

#[test]
fn a_histogram_that_forgets_the_frozen_half_is_noticed() {
    assert_eq!(failed("--sabotage forget-frozen"), ["freeze-in-response-time", "nothing-forgotten"]);
}

#[test]
fn a_retry_that_is_not_counted_is_noticed() {
    assert_eq!(failed("--sabotage forget-retry"), ["retries-counted"]);
}

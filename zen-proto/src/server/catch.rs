//! Catching panics of an answer function, so that each affects one client only.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::counters::{Counter, count};

/// Runs an answer function. Returns `None` if it panics, which ends one conversation. A panic anywhere else drains the
/// server.
pub fn catch<T>(answer: impl FnOnce() -> T) -> Option<T> {
    let was_catching = IS_CATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(answer));
    IS_CATCHING.set(was_catching);
    result.inspect_err(|_| count(Counter::Panics)).ok()
}

/// Returns whether a panic of this thread would be caught by [`catch`].
pub(super) fn is_catching() -> bool {
    IS_CATCHING.get()
}

thread_local! {
    static IS_CATCHING: Cell<bool> = const { Cell::new(false) };
}

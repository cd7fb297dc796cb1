//! Runs the real `zen-client` against small servers on threads of the test.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod ask;
mod check;
mod load;
mod retries;
mod running;
mod sage;
mod selftest;

//! Runs the real `zen-client` against small servers on threads of the test.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod alone;
mod ask;
mod check;
mod fake_server;
mod load;
mod retries;
mod running;
mod say;
mod selftest;
mod streams;

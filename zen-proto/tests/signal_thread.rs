//! A panic in the thread that handles signals. Without that thread no signal could drain the server, so the process
//! ends.

#![allow(clippy::unwrap_used)]

use std::env;
use std::process::Command;
use std::thread;
use std::time::Duration;

use clap::Parser;
use rustix::process::{Signal, getpid, kill_process};
use zen_proto::server::{Options, Server, Waiting};

/// The test starts itself as the server.
#[test]
fn its_panic_ends_the_process() {
    if env::var_os(IS_SERVER).is_some() {
        serve();
    }
    let mut server = Command::new(env::current_exe().unwrap());
    let output = server.args(["--exact", "its_panic_ends_the_process"]).env(IS_SERVER, "").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.lines().any(|line| line.starts_with("error: the server has a defect")), "{stderr}");
}

/// Runs a server whose wake function panics. A signal makes the signal thread call that function.
fn serve() -> ! {
    let server = Server::listen(&Options::parse_from(["server", "-p", "0"]), Waiting::InCalls, Some(1)).unwrap();
    server.stop.on_request(|| panic!("a defect"));
    kill_process(getpid(), Signal::TERM).unwrap();
    thread::sleep(WAIT_LIMIT);
    std::process::exit(3);
}

const IS_SERVER: &str = "ZEN_TEST_IS_SERVER";

/// The process ends within milliseconds.
const WAIT_LIMIT: Duration = Duration::from_secs(20);

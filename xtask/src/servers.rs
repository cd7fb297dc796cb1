//! The only list of servers: how each is started, and what its architecture promises.

use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace;

/// One row of the table of architectures.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// The name of its binary, or `examples/NAME` for an example: see [`workspace::binary`].
    pub(crate) binary: &'static str,
    pub(crate) arguments: &'static [&'static str],
    /// How many clients are served at the same time. The next one waits in the backlog, or in the server's own queue if
    /// it has one. `None`: as many as `--max-connections` says, and the next one is rejected.
    pub(crate) at_once: Option<usize>,
    /// How many further clients wait in a queue of the server's own. The client after them is rejected; none waits in
    /// the backlog.
    pub(crate) queue: Option<usize>,
    /// How many answers are worked out at the same time under `--delay`; a further question waits. `None`: one for each
    /// client, so that no client waits for another.
    pub(crate) answers_at_once: Option<usize>,
    /// Whether exactly `answers_at_once` answers are worked out whenever there are enough questions. Otherwise there
    /// may be fewer: one of several processes may accept all clients of a burst, or a thread may sleep while another
    /// has tasks in its queue.
    pub(crate) reaches_limit: bool,
    /// How many processes it has without clients: one, or a parent and its workers.
    pub(crate) processes: usize,
    /// Whether its first process starts another one for each client, and serves none itself.
    pub(crate) forks: bool,
    /// The number of workers, processes or loops among which clients are spread evenly; `None` if they need not be.
    pub(crate) parts: Option<usize>,
    /// Whether it is an example: it passes `check`, and promises nothing about options, limits and draining.
    pub(crate) is_example: bool,
}

pub(crate) const SERVERS: &[Entry] = &[
    Entry { at_once: Some(1), ..server("single", "zen-single", &[]) },
    Entry { at_once: Some(4), answers_at_once: Some(4), parts: Some(4), ..server("workers", "zen-threaded", &[]) },
    Entry { answers_at_once: None, ..server("per-connection", "zen-threaded", &["--mode", "per-connection"]) },
    Entry { answers_at_once: None, forks: true, ..server("per-process", "zen-threaded", &["--mode", "per-process"]) },
    Entry {
        at_once: Some(4),
        queue: Some(16),
        answers_at_once: Some(4),
        ..server("pool", "zen-threaded", &["--mode", "pool", "--workers", "4", "--queue", "16"])
    },
    Entry {
        at_once: Some(4),
        answers_at_once: Some(4),
        processes: 5,
        parts: Some(4),
        ..server("processes", "zen-threaded", &["--processes", "4", "--workers", "1"])
    },
    server("poll", "zen-poll", &[]),
    server("poll-chat", "zen-poll", &["--style", "chat"]),
    Entry { answers_at_once: Some(2), parts: Some(2), ..server("poll-loops", "zen-poll", &["--loops", "2"]) },
    Entry {
        answers_at_once: Some(2),
        reaches_limit: false,
        processes: 3,
        ..server("poll-processes", "zen-poll", &["--processes", "2"])
    },
    server("smol", "zen-async", &[]),
    Entry {
        answers_at_once: Some(2),
        reaches_limit: false,
        ..server("smol-threads", "zen-async", &["--threads", "2"])
    },
    server("async-std", "zen-async", &["--runtime", "async-std"]),
    Entry { binary: "examples/raw", is_example: true, ..server("raw", "zen-poll", &[]) },
    Entry { binary: "examples/edge", is_example: true, ..server("edge", "zen-poll", &[]) },
    Entry { binary: COMPLETION, is_example: true, ..server("completion", "zen-poll", &[]) },
    Entry {
        binary: "examples/per_core",
        is_example: true,
        answers_at_once: Some(2),
        reaches_limit: false,
        ..server("per-core", "zen-poll", &["--loops", "2"])
    },
    Entry { binary: "examples/own_executor", is_example: true, ..server("own-executor", "zen-async", &[]) },
    Entry { binary: "examples/on_tokio", is_example: true, ..server("on-tokio", "zen-async", &[]) },
];

/// Returns the server of this name.
pub(crate) fn named(name: &str) -> Result<&'static Entry> {
    SERVERS.iter().find(|entry| entry.name == name).with_context(|| {
        let names: Vec<&str> = SERVERS.iter().map(|entry| entry.name).collect();
        format!("no server is called {name}: there are {}", names.join(", "))
    })
}

/// Returns a row with the properties of most servers: one process, any number of clients, one answer at a time.
const fn server(name: &'static str, package: &'static str, arguments: &'static [&'static str]) -> Entry {
    Entry {
        name,
        package,
        binary: package,
        arguments,
        at_once: None,
        queue: None,
        answers_at_once: Some(1),
        reaches_limit: true,
        processes: 1,
        forks: false,
        parts: None,
        is_example: false,
    }
}

impl Entry {
    /// Returns its command line, without a port.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new(workspace::binary(self.binary)?);
        command.args(self.arguments);
        Ok(command)
    }

    /// Returns whether it does its I/O through io_uring, which strace does not see.
    pub(crate) fn uses_io_uring(&self) -> bool {
        self.binary == COMPLETION
    }

    /// Returns whether further clients wait while it serves [`at_once`](Entry::at_once) of them: in the backlog, or in
    /// the server's own queue.
    pub(crate) fn makes_clients_wait(&self) -> bool {
        self.at_once.is_some()
    }

    /// Returns whether it is the first row of its package: for tests of a binary and not of an architecture.
    pub(crate) fn is_first_of_package(&self) -> bool {
        SERVERS.iter().find(|other| other.package == self.package).is_some_and(|first| first.name == self.name)
    }
}

/// The binary of the example that needs io_uring.
const COMPLETION: &str = "examples/completion";

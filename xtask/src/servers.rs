//! The only list of servers: how each is started, and what its architecture promises.

use std::process::Command;

use anyhow::Result;

use crate::workspace;

/// One row of the table of architectures.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// The binary, as it lies under `target/debug`.
    pub(crate) binary: &'static str,
    pub(crate) arguments: &'static [&'static str],
    /// How many clients are served at once; the next waits in the backlog without a word. `None`: `--max-connections`
    /// many, and the next is turned away.
    pub(crate) at_once: Option<usize>,
    /// How many more wait in a queue of the server's own. The next one is rejected, and none waits in the backlog.
    pub(crate) queue: Option<usize>,
    /// How many answers are thought about at once under `--delay`, that is, who blocks whom. `None`: one for each
    /// client.
    pub(crate) answers_at_once: Option<usize>,
    /// Whether that many think whenever there is enough to think about. Else who wakes first takes what there is: one
    /// of several processes may take all clients of a burst, an executor may let one thread sleep while another's queue
    /// is not empty.
    pub(crate) is_even: bool,
    /// Its processes: one, or a parent and its workers.
    pub(crate) processes: usize,
    /// Into how many parts (workers, processes, loops) clients are spread evenly, where the architecture says so.
    pub(crate) parts: Option<usize>,
    /// An exhibit passes `check`; it promises nothing of what surrounds a server (options, limits, draining).
    pub(crate) is_example: bool,
}

pub(crate) const SERVERS: &[Entry] = &[
    Entry { at_once: Some(1), ..server("single", "zen-single", &[]) },
    Entry { at_once: Some(4), answers_at_once: Some(4), parts: Some(4), ..server("workers", "zen-threaded", &[]) },
    Entry { answers_at_once: None, ..server("per-connection", "zen-threaded", &["--mode", "per-connection"]) },
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
        is_even: false,
        processes: 3,
        ..server("poll-processes", "zen-poll", &["--processes", "2"])
    },
    server("smol", "zen-async", &[]),
    Entry { answers_at_once: Some(2), is_even: false, ..server("smol-threads", "zen-async", &["--threads", "2"]) },
    server("async-std", "zen-async", &["--runtime", "async-std"]),
    Entry { binary: "examples/raw", is_example: true, ..server("raw", "zen-poll", &[]) },
    Entry { binary: "examples/edge", is_example: true, ..server("edge", "zen-poll", &[]) },
    Entry { binary: COMPLETION, is_example: true, ..server("completion", "zen-poll", &[]) },
    Entry { binary: "examples/own_executor", is_example: true, ..server("own-executor", "zen-async", &[]) },
    Entry { binary: "examples/on_tokio", is_example: true, ..server("on-tokio", "zen-async", &[]) },
];

/// What most of them are: one process, any number of clients, one thread that thinks.
const fn server(name: &'static str, package: &'static str, arguments: &'static [&'static str]) -> Entry {
    Entry {
        name,
        package,
        binary: package,
        arguments,
        at_once: None,
        queue: None,
        answers_at_once: Some(1),
        is_even: true,
        processes: 1,
        parts: None,
        is_example: false,
    }
}

impl Entry {
    /// Its command line with no port yet.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new(workspace::binary(self.binary)?);
        command.args(self.arguments);
        Ok(command)
    }

    /// Whether it gives its calls to the kernel as requests, which strace does not see.
    pub(crate) fn makes_requests(&self) -> bool {
        self.binary == COMPLETION
    }

    /// Whether clients beyond those it serves wait in the backlog.
    pub(crate) fn makes_wait(&self) -> bool {
        self.at_once.is_some()
    }

    /// The first row of its package: for what concerns a binary and not an architecture.
    pub(crate) fn is_first_of_package(&self) -> bool {
        SERVERS.iter().find(|other| other.package == self.package).is_some_and(|first| first.name == self.name)
    }
}

/// The example that needs io_uring.
const COMPLETION: &str = "examples/completion";

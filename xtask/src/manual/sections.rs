//! The sections of the manual pages that cannot be generated from a command line.

use clap_mangen::roff::{Roff, bold, roman};

/// A section of a page: terms with their meanings, or plain text where the term is empty.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) entries: &'static [(&'static str, &'static str)],
}

impl Section {
    /// Returns the section in roff.
    pub(super) fn roff(&self) -> String {
        let mut roff = Roff::new();
        roff.control("SH", [self.title]);
        for (term, meaning) in self.entries {
            if !term.is_empty() {
                roff.control("TP", []).text([bold(*term)]);
            }
            roff.text([roman(*meaning)]);
        }
        roff.render()
    }
}

pub(super) const OF_SERVERS: &[Section] = &[
    Section {
        title: "EXIT STATUS",
        entries: &[
            ("0", "It received SIGTERM or SIGINT, and drained."),
            ("1", "It could not start, or could not go on; one line on stderr says what to do."),
            ("2", "The command line is wrong."),
            ("130, 143", "A second SIGINT or SIGTERM ended it immediately."),
        ],
    },
    Section {
        title: "SIGNALS",
        entries: &[(
            "SIGTERM, SIGINT",
            "Drain: no further client is accepted, whole questions are answered, and clients that are left after \
            --grace are reset. A second signal ends the process immediately.",
        )],
    },
    Section {
        title: "ENVIRONMENT",
        entries: &[
            ("LISTEN_PID, LISTEN_FDS", "Socket activation: descriptor 3 is the listener, and LISTEN_FDS must be 1."),
            ("NOTIFY_SOCKET, WATCHDOG_USEC", "The service manager is notified of readiness, heartbeats and stopping."),
            ("JOURNAL_STREAM", "If it names stderr, log lines have the journal's priorities."),
            ("RUST_LOG", "Log filter; overrides -q and -v."),
        ],
    },
    Section {
        title: "SEE ALSO",
        entries: &[(
            "",
            "zen-single(1), zen-threaded(1), zen-poll(1), zen-async(1), zen-client(1), systemd.socket(5), inetd(8)",
        )],
    },
];

pub(super) const OF_CLIENT: &[Section] = &[
    Section {
        title: "EXIT STATUS",
        entries: &[
            ("0", "Every question was answered, every case passed, or (say) the server ended the conversation."),
            ("1", "Anything else; one line on stderr says what to do. Failed cases are reported on stdout alone."),
            ("2", "The command line is wrong."),
        ],
    },
    Section {
        title: "SIGNALS",
        entries: &[(
            "SIGINT, SIGTERM",
            "The first one ends a run of zen-client load early, with its result; the second one ends it immediately.",
        )],
    },
    Section {
        title: "SEE ALSO",
        entries: &[(
            "",
            "zen-client(1), zen-client-check(1), zen-client-load(1), zen-client-say(1), zen-client-selftest(1), \
            zen-single(1), zen-threaded(1), zen-poll(1), zen-async(1)",
        )],
    },
];

//! What a command line does not know of itself.

use clap_mangen::roff::{Roff, bold, roman};

/// A section of a page: terms and what they mean, or plain text where there is no term.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) entries: &'static [(&'static str, &'static str)],
}

impl Section {
    /// The section as a page holds it.
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
            ("0", "It was told to stop, and has drained."),
            ("1", "It could not serve, or not go on; one line on stderr says what to do."),
            ("2", "The command line is wrong."),
            ("130, 143", "A second SIGINT or SIGTERM ended it at once."),
        ],
    },
    Section {
        title: "SIGNALS",
        entries: &[(
            "SIGTERM, SIGINT",
            "Drain: nobody new is taken, every whole question that has come is answered, and after --grace whoever is left is reset. A second one ends the process at once.",
        )],
    },
    Section {
        title: "ENVIRONMENT",
        entries: &[
            ("LISTEN_PID, LISTEN_FDS", "Socket activation: descriptor 3 is the listener, and LISTEN_FDS must be 1."),
            ("NOTIFY_SOCKET, WATCHDOG_USEC", "The service manager is told of readiness, life and stopping."),
            ("JOURNAL_STREAM", "If it names stderr, log lines carry the journal's priorities."),
            ("RUST_LOG", "What is logged, whatever -q and -v say."),
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
            (
                "0",
                "Everything was answered; every case passed; to zen-client say, the server has ended the conversation.",
            ),
            ("1", "Not so; one line on stderr says what to do."),
            ("2", "The command line is wrong."),
        ],
    },
    Section {
        title: "SIGNALS",
        entries: &[("SIGINT, SIGTERM", "Ends a run of zen-client load early, with its result; a second one at once.")],
    },
    Section {
        title: "SEE ALSO",
        entries: &[(
            "",
            "zen-client(1), zen-client-check(1), zen-client-load(1), zen-client-say(1), zen-client-selftest(1), zen-single(1), zen-threaded(1), zen-poll(1), zen-async(1)",
        )],
    },
];

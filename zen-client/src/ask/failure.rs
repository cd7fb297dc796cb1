//! Why a question has no answer.

use std::net::SocketAddr;

/// Why a question has no answer, and whether another try may help.
#[derive(Debug)]
pub(super) enum Failure {
    /// No address accepted a connection. Another try may help.
    NotConnected(anyhow::Error),
    /// The conversation ended before the answer. Another try may help.
    Ended(String),
    /// The server sent something that it would send again.
    Refused(anyhow::Error),
}

impl Failure {
    /// Adds the addresses that failed before.
    pub(super) fn after(self, tried: &[SocketAddr]) -> Self {
        match self {
            Self::Ended(what) if !tried.is_empty() => {
                let tried: Vec<String> = tried.iter().map(ToString::to_string).collect();
                Self::Ended(format!("{what} (tried before: {})", tried.join(", ")))
            }
            other => other,
        }
    }
}

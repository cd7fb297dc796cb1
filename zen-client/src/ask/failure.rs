//! Why a question has no answer.

use std::net::SocketAddr;

/// The reason, which says whether another try may help.
#[derive(Debug)]
pub(super) enum Failure {
    /// No address took us. Another try may help.
    NotConnected(anyhow::Error),
    /// The conversation is over without the answer. Another try may help.
    Ended(String),
    /// The server said something that it would say again.
    Refused(anyhow::Error),
}

impl Failure {
    /// Names the addresses that have failed before it.
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

//! Servers that others start: inetd and systemd, with a listener or with one client.

pub(crate) mod direct;
pub(crate) mod inetd;
pub(crate) mod systemd;

use super::{Case, bare};

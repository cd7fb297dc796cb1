//! Servers that another program starts, with a listener or with one client: inetd and systemd.

pub(crate) mod direct;
pub(crate) mod inetd;
pub(crate) mod systemd;

use super::{Case, bare};

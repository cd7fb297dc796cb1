//! The service manager that started this process, if one did: what it hears of it (sd_notify(3)).
//!
//! A worker tells nobody: its parent does, and takes NOTIFY_SOCKET out of its environment.

use sd_notify::NotifyState;

/// All who serve can be connected to.
pub(super) fn is_ready() {
    tell(&[NotifyState::Ready]);
}

/// The drain begins.
pub(super) fn is_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// All who serve are alive; see [`super::watchdog`].
pub(super) fn is_alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("the service manager cannot be told: {error}");
    }
}

//! What the service manager is told: systemd, if it asks for it.

use sd_notify::{NotifyState, notify};

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// The node serves.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The node takes up its configuration; [`ready`] ends that.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The node stops.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The node is alive. Said every second, which is often enough for any watchdog.
pub fn alive() {
    if sd_notify::watchdog_enabled().is_some() {
        tell(&[NotifyState::Watchdog]);
    }
}

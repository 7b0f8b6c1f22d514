//! Signals. They are listened to before the node says that it serves: one that comes right after that must not end it half way.

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The configuration is to be read again.
    Reload,
    /// The node is to stop, once those who send it requests have noticed.
    Drain,
    /// The node is to stop.
    Stop,
}

#[cfg(unix)]
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub fn new() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.terminate.recv() => Signal::Drain,
            _ = self.hang_up.recv() => Signal::Reload,
        }
    }

    /// Waits for one that asks the node to stop.
    pub async fn end(&mut self) {
        while self.next().await == Signal::Reload {}
    }
}

#[cfg(windows)]
pub struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    pub fn new() -> std::io::Result<Signals> {
        tokio::signal::windows::ctrl_c().map(Signals)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Signal {
        self.0.recv().await;
        Signal::Stop
    }

    /// Waits for one that asks the node to stop.
    pub async fn end(&mut self) {
        self.next().await;
    }
}

impl Signals {
    /// Waits for the first signal that asks the program to stop.
    pub async fn first() {
        match Signals::new() {
            Ok(mut signals) => signals.end().await,
            Err(error) => tracing::error!(%error, "signals cannot be heard"),
        }
    }
}

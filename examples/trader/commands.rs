//! What a person, a signal or the watcher wants the trader to do.

use std::io;
use std::sync::mpsc::Sender;
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use hotslot::BoxError;

pub enum Command {
    /// Get the plugin's bytes anew; they come back as [`Command::Load`].
    Rebuild,
    /// Reload the plugin from these bytes, or say why there are none.
    Load(Result<Vec<u8>, BoxError>),
    /// Go back to the generation before.
    RollBack,
    /// Show what happened so far.
    History,
    /// The status bar is out of date.
    Refresh,
    /// End.
    Quit,
}

/// Turns keys into commands until nobody listens.
pub fn from_keys(commands: Sender<Command>) -> io::Result<()> {
    const REFRESH: Duration = Duration::from_millis(500);
    let next = || -> io::Result<Option<Command>> {
        if !event::poll(REFRESH)? {
            return Ok(Some(Command::Refresh));
        }
        Ok(match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => command_of(key),
            Event::Resize(..) => Some(Command::Refresh),
            _ => None,
        })
    };
    let listen = move || {
        loop {
            // A terminal that cannot be read is gone, and nobody is there to see prices.
            let command = next().unwrap_or(Some(Command::Quit));
            if command.is_some_and(|command| commands.send(command).is_err()) {
                return;
            }
        }
    };
    std::thread::Builder::new().name("keys".to_owned()).spawn(listen).map(drop)
}

fn command_of(key: KeyEvent) -> Option<Command> {
    match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
        (KeyCode::Char('r'), true) => Some(Command::Rebuild),
        (KeyCode::Char('b'), true) => Some(Command::RollBack),
        (KeyCode::Char('c'), true) => Some(Command::Quit),
        (KeyCode::Char('h'), false) => Some(Command::History),
        _ => None,
    }
}

/// Turns signals into commands until nobody listens: SIGHUP reloads, SIGTERM and SIGINT end.
#[cfg(unix)]
pub fn from_signals(commands: Sender<Command>) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let listen = move || {
        for signal in signals.forever() {
            let command = if signal == SIGHUP { Command::Rebuild } else { Command::Quit };
            if commands.send(command).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map(drop)
}

/// Only Unix has these signals; elsewhere ctrl+c ends the process.
#[cfg(not(unix))]
pub fn from_signals(_: Sender<Command>) -> io::Result<()> {
    Ok(())
}

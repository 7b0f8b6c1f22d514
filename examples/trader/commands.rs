//! Commands from the keyboard, from signals and from the file watcher.

use std::io;
use std::sync::mpsc::Sender;
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use hotslot::BoxError;

pub enum Command {
    /// Rebuild the plugin; its bytes arrive as [`Command::Load`].
    Rebuild,
    /// Reload the plugin from these bytes, or print why there are none.
    Load(Result<Vec<u8>, BoxError>),
    /// Roll back to the previous generation.
    RollBack,
    /// Print the history.
    History,
    /// Redraw the status bar.
    Refresh,
    /// Exit.
    Quit,
    /// Exit because the prices cannot be written.
    Fail(io::Error),
}

/// Turns keys into commands until the receiver is gone.
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
            // A terminal that cannot be read is closed, and nobody is there to see prices.
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

/// Turns signals into commands until the receiver is gone: SIGHUP reloads, SIGTERM and SIGINT quit.
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

/// Does nothing: only Unix has these signals, and elsewhere ctrl+c ends the process.
#[cfg(not(unix))]
pub fn from_signals(_: Sender<Command>) -> io::Result<()> {
    Ok(())
}

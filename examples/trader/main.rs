//! A trader that never restarts: it prints prices from a plugin, and hot-reloads the plugin while it runs.
//!
//! `cargo run --example trader`, then edit `SYMBOL` in `examples/trader/plugins/price_printer/src/lib.rs` and press
//! ctrl+r. This file shows how the library is used; the other files in this directory are plumbing.
#![allow(unreachable_pub, reason = "a binary has no dependents")]

mod cli;
mod commands;
mod format;
mod replay;
mod screen;
mod source;
mod venue;
mod watch;

use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use clap::Parser;
use hotslot::native::{self, Native, Rehearsal, Trust};
use hotslot::{BoxError, HotSlot, Report, Runner, escape_untrusted, transfer_state};
use trader_feed::{PriceFeed, Tape};

use self::cli::Options;
use self::commands::Command;
use self::screen::Screen;
use self::source::Source;
use self::venue::Venue;

fn main() -> ExitCode {
    // The library runs this program as a child process to rehearse a new plugin; the child does not get past this line.
    native::rehearsal_point();
    match trade(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trader: {}", escape_untrusted(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn trade(options: &Options) -> Result<(), BoxError> {
    let since = Instant::now();
    let venue = Venue::choose(options)?;
    let screen = Screen::new(venue.is_replay);
    screen.show_log();
    screen.note(&venue.notice);
    let (commands, requests) = channel();
    let source = Arc::new(Source::at(&options.plugin, screen.clone())?);

    // The backend: plugins are dynamic libraries that implement our interface and print to our tape. One that crashes
    // at start-up does so in a child process.
    let tape: Arc<dyn Tape> = Arc::new(Printer { screen: screen.clone(), quit: commands.clone() });
    // SAFETY: whoever runs this program chose the plugin that it loads, and edits its source.
    let trust = unsafe { Trust::assume() };
    let backend = Native::interface::<dyn PriceFeed>(trust)
        .config(venue.config.to_string())
        .service(tape)
        .rehearse(Rehearsal::default());

    // The slot: one plugin serves at a time, and a new one takes over the state of the one it replaces.
    let slot =
        HotSlot::builder(backend).name("trader").keep_previous(2).hand_over(transfer_state).open(source.bytes()?)?;
    // Prints what the slot does on its own, such as an automatic rollback.
    let (events, printer) = (slot.subscribe(), screen.clone());
    std::thread::spawn(move || {
        events.filter_map(|event| format::unrequested(&event)).for_each(|line| printer.note(&line))
    });

    let terminal = screen.take_terminal()?;
    if terminal.is_some() {
        commands::from_keys(commands.clone())?;
    }
    commands::from_signals(commands.clone())?;
    let _watcher = options.watch.then(|| watch::watch(&source.origin, commands.clone())).transpose()?;
    let rebuild = source.in_background(commands)?;

    // The runner: gives the current plugin a thread to run on.
    let runner = Runner::start(slot)?;
    let print = |result: Result<Report, BoxError>| match result {
        Ok(report) => screen.note(&format::attempt(&report)),
        Err(error) => screen.note(&error.to_string()),
    };
    let ended = loop {
        screen.set_bar(format::bar(runner.slot(), venue.is_replay, since));
        match requests.recv()? {
            Command::Rebuild => rebuild.send(())?,
            Command::Load(plugin) => print(plugin.and_then(|bytes| Ok(runner.reload(bytes)?))),
            Command::RollBack => print(runner.rollback().map_err(Into::into)),
            Command::History => runner.slot().history().iter().for_each(|report| screen.note(&format::history(report))),
            Command::Refresh => {}
            Command::Quit => break Ok(()),
            Command::Fail(error) => break Err(format!("the prices cannot be written: {error}").into()),
        }
    };
    source.cancel();
    runner.stop().close(Duration::from_secs(5));
    ended
}

/// Prints plugins' prices on the screen.
struct Printer {
    screen: Screen,
    quit: Sender<Command>,
}

impl Tape for Printer {
    fn price(&self, line: &str, details: &str) {
        let command = match self.screen.price(line, details) {
            Ok(()) => return,
            // The pipe is closed, so nobody reads any more.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Command::Quit,
            Err(error) => Command::Fail(error),
        };
        // The command loop may have ended as well.
        let _ = self.quit.send(command);
    }
}

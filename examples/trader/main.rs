//! A trader that never restarts: it prints what its plugin sends, and replaces the plugin while it runs.
//!
//! `cargo run --example trader`, then edit `SYMBOL` in `examples/trader/plugins/price_printer/src/lib.rs` and press
//! ctrl+r. This file is the library at work; everything else in this folder is plumbing.
#![allow(unreachable_pub, reason = "a program has nobody outside")]

mod cli;
mod commands;
mod format;
mod replay;
mod screen;
mod source;
mod venue;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use clap::Parser;
use hotslot::native::{self, Native, Rehearsal};
use hotslot::{BoxError, HotSlot, Report, Runner, escape_untrusted, transfer_state};
use trader_feed::{PriceFeed, Tape};

use self::cli::Options;
use self::commands::Command;
use self::screen::Screen;
use self::source::Source;
use self::venue::Venue;

fn main() -> ExitCode {
    // The library starts this program a second time to try a new plugin there first; that one goes no further.
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
    let (commands, wanted) = channel();
    let source = Arc::new(Source::at(&options.plugin, screen.clone())?);

    // The backend: plugins are dynamic libraries that speak our interface, and print on our tape. One that crashes when
    // it starts does so in a child process.
    let tape: Arc<dyn Tape> = Arc::new(Printer { screen: screen.clone(), quit: commands.clone() });
    let backend = Native::interface::<dyn PriceFeed>()
        .config(venue.config.to_string())
        .service(tape)
        .rehearse(Rehearsal::default());

    // The slot: where exactly one plugin serves at a time. A new one takes over the state of the one before.
    let slot =
        HotSlot::builder(backend).name("trader").keep_previous(2).hand_over(transfer_state).open(source.bytes()?)?;
    // What the slot does of its own accord is told as it happens.
    let (events, teller) = (slot.subscribe(), screen.clone());
    std::thread::spawn(move || events.filter_map(|event| format::surprise(&event)).for_each(|line| teller.note(&line)));

    let terminal = screen.take_terminal()?;
    if terminal.is_some() {
        commands::from_keys(commands.clone())?;
    }
    commands::from_signals(commands.clone())?;
    let _watcher = options.watch.then(|| watch::watch(&source.origin, commands.clone())).transpose()?;
    let rebuild = source.in_background(commands)?;

    // The runner: the plugin works on a thread of its own until there is a better one.
    let runner = Runner::start(slot)?;
    let tell = |result: Result<Report, BoxError>| match result {
        Ok(report) => screen.note(&format::attempt(&report)),
        Err(error) => screen.note(&error.to_string()),
    };
    loop {
        screen.set_bar(format::bar(runner.slot(), venue.is_replay, since));
        match wanted.recv()? {
            Command::Rebuild => rebuild.send(())?,
            Command::Load(plugin) => tell(plugin.and_then(|bytes| Ok(runner.reload(bytes)?))),
            Command::RollBack => tell(runner.rollback().map_err(Into::into)),
            Command::History => runner.slot().history().iter().for_each(|report| screen.note(&format::history(report))),
            Command::Refresh => {}
            Command::Quit => break,
        }
    }
    source.cancel();
    runner.stop().close(Duration::from_secs(5));
    Ok(())
}

/// What plugins print on.
struct Printer {
    screen: Screen,
    quit: Sender<Command>,
}

impl Tape for Printer {
    fn price(&self, line: &str, details: &str) {
        if self.screen.price(line, details).is_err() {
            // Nobody reads any more: the pipe or the terminal is gone. Whoever takes commands may be gone, too.
            let _ = self.quit.send(Command::Quit);
        }
    }
}

//! The trader on a terminal: keys go in, and what a person would see comes out.

use std::io::Write;

use portable_pty::{CommandBuilder, MasterPty, PtySize, native_pty_system};
use rustix::process::Signal;

use super::output::{COLUMNS, ROWS};
use super::{Exchange, Output, Process, Start};

pub(crate) const CTRL_B: &str = "\x02";
pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_R: &str = "\x12";

pub(crate) struct Terminal {
    process: Process,
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    modes_before: String,
    pub(crate) output: Output,
    pub(crate) exchange: Exchange,
}

/// A price as it is shown: `SOLUSDC: 142.31 (replay)   ema 142.02   tick 17`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Price {
    pub(crate) symbol: String,
    pub(crate) text: String,
    pub(crate) tick: u64,
}

impl Terminal {
    /// Starts the trader, and waits until it has told where its exchange is.
    #[track_caller]
    pub(crate) fn start(start: Start) -> Terminal {
        let size = PtySize { rows: ROWS.get(), cols: COLUMNS.get(), ..PtySize::default() };
        let pair = native_pty_system().openpty(size).unwrap();
        let modes_before = modes(&*pair.master);
        let output = Output::of_terminal(pair.master.try_clone_reader().unwrap());
        let keys = pair.master.take_writer().unwrap();
        let process = Process::new(pair.slave.spawn_command(as_builder(&start)).unwrap());
        let exchange = output.find_anywhere("where the exchange is", Exchange::in_notice);
        Terminal { process, master: pair.master, keys, modes_before, output, exchange }
    }

    pub(crate) fn press(&mut self, key: &str) {
        self.keys.write_all(key.as_bytes()).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for a line with this text in it.
    #[track_caller]
    pub(crate) fn expect(&self, text: &str) -> String {
        self.output.find(text, |line| line.contains(text).then(|| line.to_owned()))
    }

    /// Waits for the next price.
    #[track_caller]
    pub(crate) fn price(&self) -> Price {
        self.output.find("a price", price_in)
    }

    /// Waits for the next price of a symbol.
    #[track_caller]
    pub(crate) fn price_of(&self, symbol: &str) -> Price {
        self.output.find(symbol, |line| price_in(line).filter(|price| price.symbol == symbol))
    }

    /// All prices so far.
    pub(crate) fn prices(&self) -> Vec<Price> {
        self.output.lines().iter().filter_map(|line| price_in(line)).collect()
    }

    /// Panics unless the ticks were counted on through everything that happened.
    #[track_caller]
    pub(crate) fn assert_no_tick_is_lost(&self) {
        let prices = self.prices();
        let ticks: Vec<u64> = prices.iter().map(|price| price.tick).collect();
        assert_eq!(
            ticks,
            (1..=prices.len() as u64).collect::<Vec<_>>(),
            "the count starts at 1 and goes on: {prices:?}"
        );
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Whether the trader has changed the terminal's modes.
    pub(crate) fn is_taken(&self) -> bool {
        modes(&*self.master) != self.modes_before
    }

    /// Ends it by key. See [`ended`](Terminal::ended).
    #[track_caller]
    pub(crate) fn quit(mut self) -> Output {
        self.press(CTRL_C);
        self.ended()
    }

    /// Waits for the end, and panics unless it was in order and left the terminal as it was found.
    #[track_caller]
    pub(crate) fn ended(mut self) -> Output {
        self.output.wait_for_end();
        assert_eq!(self.process.exit_code(), Ok(0));
        assert!(!self.is_taken(), "{} before, and now {}", self.modes_before, modes(&*self.master));
        let (screen, has_cursor) = self.output.screen();
        assert!(has_cursor, "the cursor is still hidden");
        assert!(!screen.contains("ctrl+r rebuild"), "the bar is still there:\n{screen}");
        self.output
    }
}

/// What `stty -a` would show.
fn modes(terminal: &dyn MasterPty) -> String {
    format!("{:?}", terminal.get_termios().expect("a terminal has modes"))
}

fn as_builder(start: &Start) -> CommandBuilder {
    let command = start.command();
    let mut builder = CommandBuilder::new(command.get_program());
    builder.args(command.get_args());
    builder.cwd(command.get_current_dir().expect("it is always given"));
    builder.env("TERM", "xterm-256color");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => builder.env(name, value),
            None => builder.env_remove(name),
        }
    }
    builder
}

fn price_in(line: &str) -> Option<Price> {
    let (price, details) = line.split_once(" (replay)   ema ")?;
    let (symbol, text) = price.split_once(": ")?;
    let (_, tick) = details.split_once("   tick ")?;
    Some(Price { symbol: symbol.to_owned(), text: text.to_owned(), tick: tick.parse().ok()? })
}

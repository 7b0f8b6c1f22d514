//! The trader without a terminal: prices on one pipe, everything else on another.

use std::process::Stdio;

use rustix::process::Signal;

use super::{Exchange, Output, Process, Start};

pub(crate) struct Pipes {
    process: Process,
    /// Standard output.
    pub(crate) prices: Output,
    /// Standard error.
    pub(crate) events: Output,
}

impl Pipes {
    pub(crate) fn start(start: Start) -> Pipes {
        let mut command = start.command();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let prices = Output::of_pipe(child.stdout.take().unwrap());
        let events = Output::of_pipe(child.stderr.take().unwrap());
        Pipes { process: Process::new(Box::new(child)), prices, events }
    }

    /// The exchange that it brought along.
    #[track_caller]
    pub(crate) fn exchange(&self) -> Exchange {
        self.events.find_anywhere("where the exchange is", Exchange::in_notice)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for a price that begins like this.
    #[track_caller]
    pub(crate) fn expect_price(&self, start: &str) -> String {
        self.prices.find(start, |line| line.starts_with(start).then(|| line.to_owned()))
    }

    /// Waits for an event with this text in it.
    #[track_caller]
    pub(crate) fn expect(&self, text: &str) -> String {
        self.events.find(text, |line| line.contains(text).then(|| line.to_owned()))
    }

    /// Ends it, and panics unless that was in order; gives prices and events.
    #[track_caller]
    pub(crate) fn terminate(self) -> [Output; 2] {
        self.signal(Signal::TERM);
        self.ended(0)
    }

    /// Waits for the end, and panics unless it came with this exit code; gives prices and events.
    #[track_caller]
    pub(crate) fn ended(mut self, exit_code: u32) -> [Output; 2] {
        self.prices.wait_for_end();
        self.events.wait_for_end();
        assert_eq!(self.process.exit_code(), Ok(exit_code), "{:#?}", self.events.lines());
        [self.prices, self.events]
    }
}

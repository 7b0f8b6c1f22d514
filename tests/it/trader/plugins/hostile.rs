//! A plugin that says what would steer a terminal or forge a line, in every way in which a plugin can say something.

use hotslot_plugin::{Error, Host, Level, Plugin, Stop, export};
use trader_feed::{Indicator, PriceFeed, Tape};

/// When it strikes.
#[derive(PartialEq)]
#[allow(dead_code, reason = "each build uses one")]
enum Way {
    Create,
    Restore,
    Run,
    Panic,
}

const WAY: Way = Way::Run;

/// A window title, a cleared screen in both codings, forged lines, a backspace, a reversal of the writing direction.
const ATTACK: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}2J\r\nBTCUSDC: 1.00\nBTCUSDC: 2.00 (replay)\rBTCUSDC: 3.00\u{8}\u{202e}\t\u{1b}[31mred";

struct Hostile {
    host: Host,
    tape: Box<dyn Tape>,
}

impl PriceFeed for Hostile {
    fn symbol(&self) -> String {
        ATTACK.to_owned()
    }
}

impl Plugin for Hostile {
    const SCHEMA: &'static str = Indicator::SCHEMA;

    fn create(host: Host) -> Result<Self, Error> {
        if WAY == Way::Create { Err(ATTACK.into()) } else { Ok(Hostile { tape: host.service()?, host }) }
    }

    fn restore(&self, _: &str, _: &[u8]) -> Result<(), Error> {
        if WAY == Way::Restore { Err(ATTACK.into()) } else { Ok(()) }
    }

    fn run(&self, _: &Stop) -> Result<(), Error> {
        self.tape.price(ATTACK, ATTACK);
        self.host.log(Level::Error, ATTACK);
        self.host.log_as(ATTACK, Level::Error, ATTACK);
        assert!(WAY != Way::Panic, "{ATTACK}");
        Err(ATTACK.into())
    }
}

export!(Hostile as PriceFeed);

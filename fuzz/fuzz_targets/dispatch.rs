//! Dispatches untrusted calls: any method number and arguments must return a result or an error.
//!
//! `fuzz/run` generates the seeds and runs it.
#![no_main]

use hotslot_plugin::{Answer, Argument, Arguments, CallError, CallErrorKind, Interface, Plain, Schema, interface};
use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Plain)]
enum Side {
    Buy = 1,
    Sell = -1,
}

#[derive(Clone, Copy, Plain)]
struct Order {
    side: Side,
    price: f64,
    steps: [Option<u16>; 2],
    mark: char,
}

#[derive(Serialize, Deserialize, Schema)]
enum Note {
    Empty,
    Text { subject: String, lines: Vec<Note> },
}

#[interface(version = "1.0")]
trait Everything {
    fn number(&self, value: u8) -> u8;
    fn order(&self, order: Order, is_firm: bool) -> Order;
    fn text(&self, before: u32, text: &str, bytes: &[u8], after: i16) -> String;
    fn owned(&self, text: String, bytes: Vec<u8>) -> Vec<u8>;
    fn note(&self, note: &Note, more: Vec<Note>) -> Result<Note, CallError>;
}

struct Plugin;

impl Everything for Plugin {
    fn number(&self, value: u8) -> u8 {
        value
    }

    fn order(&self, order: Order, _: bool) -> Order {
        order
    }

    fn text(&self, before: u32, text: &str, bytes: &[u8], after: i16) -> String {
        format!("{before}{text}{}{after}", bytes.len())
    }

    fn owned(&self, text: String, bytes: Vec<u8>) -> Vec<u8> {
        [text.into_bytes(), bytes].concat()
    }

    fn note(&self, _: &Note, mut more: Vec<Note>) -> Result<Note, CallError> {
        more.pop().ok_or_else(|| CallError::failed("there is none"))
    }
}

// The input: the method's number, the number of result words, then arguments: an even byte and eight bytes for a word, an
// odd byte, a length and that many bytes for bytes.
fuzz_target!(|input: &[u8]| {
    let [method, room, rest @ ..] = input else { return };
    let mut rest = rest;
    let mut arguments = Vec::new();
    while let [tag, after @ ..] = rest {
        let (argument, after) = match (tag % 2, after) {
            (0, after) => match after.split_first_chunk() {
                Some((word, after)) => (Argument::word(u64::from_le_bytes(*word)), after),
                None => return,
            },
            (_, [length, after @ ..]) => match after.split_at_checked(usize::from(*length)) {
                Some((bytes, after)) => (Argument::bytes(bytes), after),
                None => return,
            },
            _ => return,
        };
        arguments.push(argument);
        rest = after;
    }
    let mut words = vec![0; usize::from(*room)];
    let plugin: &dyn Everything = &Plugin;
    let outcome = plugin.dispatch(u32::from(*method), &mut Arguments::new(&arguments), &mut Answer::new(&mut words));
    if let Err(error) = outcome {
        use CallErrorKind::{Failed, Malformed, Unsupported};
        assert!(matches!(error.kind(), Failed | Malformed | Unsupported));
    }
});

//! Single values of the configuration, each with what it may be.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// A time in seconds, whole or not.
#[derive(Clone, Copy, PartialEq)]
pub struct Seconds(pub Duration);

impl Seconds {
    pub const fn whole(seconds: u64) -> Seconds {
        Seconds(Duration::from_secs(seconds))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Seconds, D::Error> {
        time(deserializer, 1.0, "seconds").map(Seconds)
    }
}

/// A time in milliseconds, whole or not.
#[derive(Clone, Copy)]
pub struct Milliseconds(pub Duration);

impl<'de> Deserialize<'de> for Milliseconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Milliseconds, D::Error> {
        time(deserializer, 1000.0, "milliseconds").map(Milliseconds)
    }
}

fn time<'de, D: Deserializer<'de>>(deserializer: D, per_second: f64, unit: &str) -> Result<Duration, D::Error> {
    const WEEK: f64 = 7.0 * 24.0 * 3600.0;
    let number = f64::deserialize(deserializer)?;
    if (0.0..=WEEK * per_second).contains(&number) {
        Ok(Duration::from_secs_f64(number / per_second))
    } else {
        Err(D::Error::custom(format!("{number} is no number of {unit} from 0 to a week")))
    }
}

/// A share of the whole, from 0 to 1.
#[derive(Clone, Copy)]
pub struct Share(pub f64);

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
        match f64::deserialize(deserializer)? {
            share @ 0.0..=1.0 => Ok(Share(share)),
            other => Err(D::Error::custom(format!("{other} is no share: it goes from 0 to 1"))),
        }
    }
}

pub(super) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let path = String::deserialize(deserializer)?;
    match path.parse::<hyper::http::uri::PathAndQuery>() {
        Ok(_) if path.starts_with('/') => Ok(Some(path)),
        _ => Err(D::Error::custom(format!("{path:?} is no path: write /health"))),
    }
}

pub fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Seconds, D::Error> {
    let seconds = Seconds::deserialize(deserializer)?;
    if seconds.0.is_zero() { Err(D::Error::custom("this takes a time above 0")) } else { Ok(seconds) }
}

pub(super) fn body_cap<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    const MOST: usize = 512 << 10;
    match usize::deserialize(deserializer)? {
        cap if cap <= MOST => Ok(cap),
        _ => Err(D::Error::custom(format!("at most {MOST} bytes of a body can be inspected"))),
    }
}

pub(super) fn verdict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        verdict @ 0..=3 => Ok(verdict),
        other => Err(D::Error::custom(format!("{other} is no verdict: 0 is allow, 1 block, 2 challenge, 3 log"))),
    }
}

pub(super) fn some_milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Milliseconds, D::Error> {
    let time = Milliseconds::deserialize(deserializer)?;
    if time.0.is_zero() { Err(D::Error::custom("this takes a time above 0")) } else { Ok(time) }
}

/// What an instance may have: a page at least, and no more than a module can address.
pub(super) fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    within(deserializer, 64 << 10, 4 << 30, "bytes of memory")
}

/// More calls than this at once are more instances than an engine can have.
pub(super) fn calls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroUsize, D::Error> {
    let calls = within(deserializer, 1, 10_000, "calls at once")?;
    NonZeroUsize::new(calls).ok_or_else(|| D::Error::custom("nonzero"))
}

pub(super) fn uses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    within(deserializer, 1, u32::MAX as usize, "calls of an instance").map(|uses| uses as u32)
}

/// Versions that are kept warm have their memory for as long.
pub(super) fn versions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    within(deserializer, 0, 64, "versions that are kept")
}

pub(super) fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    within(deserializer, 1, usize::MAX >> 8, "these")
}

pub(super) fn some_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    within(deserializer, 1, 1_000_000, "times in a row").map(|count| count as u32)
}

fn within<'de, D: Deserializer<'de>>(
    deserializer: D,
    least: usize,
    most: usize,
    what: &str,
) -> Result<usize, D::Error> {
    let value = usize::deserialize(deserializer)?;
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(D::Error::custom(format!("{value} cannot work: {what} are from {least} to {most}")))
}

pub(super) fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[u8; 32]>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match blake3::Hash::from_hex(&text) {
        Ok(hash) => Ok(Some(*hash.as_bytes())),
        Err(_) => Err(D::Error::custom("a digest has 64 hexadecimal digits: printf %s TOKEN | b3sum")),
    }
}

/// The secret of the admin API. Never printed by accident.
#[derive(Clone)]
pub struct Token(pub String);

impl std::str::FromStr for Token {
    type Err = &'static str;

    fn from_str(token: &str) -> Result<Token, &'static str> {
        if token.len() >= 16 && token.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Token(token.to_owned()))
        } else {
            Err("a token has at least 16 characters, all of them visible ASCII")
        }
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Token, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What the admin API asks for.
#[derive(Clone)]
pub enum AdminToken {
    /// Nothing.
    None,
    Secret(Token),
}

impl std::str::FromStr for AdminToken {
    type Err = &'static str;

    fn from_str(token: &str) -> Result<AdminToken, &'static str> {
        if token == "none" { Ok(AdminToken::None) } else { token.parse().map(AdminToken::Secret) }
    }
}

impl<'de> Deserialize<'de> for AdminToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AdminToken, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

//! What a WAF node and its rules share: the [interface](Waf), and how a request is written down for it.
//!
//! The host writes, the rules read: the bytes are copied once, into a module's memory, and not at all for a library.
//! Integers are little-endian.
//!
//! | field | size in bytes |
//! |---|---|
//! | format version, [`VERSION`] | 1 |
//! | number of headers | 2 |
//! | length of the method, then the method | 2 + n |
//! | length of the target as it was sent (path and query), then the target | 4 + n |
//! | for each header: length of the name, length of the value, name, value | 2 + 4 + n + m |
//! | length of the body, then the body | 4 + n |
//!
//! A name that begins with a colon, which no client can send, is the host's own word: [`CLIENT`] and [`IF_UNREAD`].
//!
//! Nothing follows the body. Names and values are bytes, not text: what an attacker sends need not be UTF-8.
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::fmt;

use hotslot_plugin::{CallError, Schema, interface};
use serde::{Deserialize, Serialize};

/// Rules for requests. They are configured with a rule file.
#[interface(version = "1.0")]
pub trait Waf {
    /// What is to happen to a request, which [`encode`] wrote.
    fn inspect_request(&self, request: &[u8]) -> Result<Decision, CallError>;
}

/// A verdict with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Decision {
    /// What is to happen.
    pub verdict: Verdict,
    /// Why. `None` if nothing was found.
    pub reason: Option<Reason>,
}

/// What is to happen to a request. Of two, the greater one is the stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Schema)]
pub enum Verdict {
    /// Let it through.
    Allow = 0,
    /// Refuse it.
    Block = 1,
    /// Make the client show that a person is behind it.
    Challenge = 2,
    /// Let it through, and write it down.
    Log = 3,
}

impl Verdict {
    /// All of them, by their numbers.
    pub const ALL: [Verdict; 4] = [Verdict::Allow, Verdict::Block, Verdict::Challenge, Verdict::Log];

    /// A word for it.
    pub fn name(self) -> &'static str {
        ["allow", "block", "challenge", "log"][self as usize]
    }

    fn strength(self) -> usize {
        [0, 3, 2, 1][self as usize]
    }
}

impl Ord for Verdict {
    fn cmp(&self, other: &Verdict) -> Ordering {
        self.strength().cmp(&other.strength())
    }
}

impl PartialOrd for Verdict {
    fn partial_cmp(&self, other: &Verdict) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Which rule decided, and on what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Reason {
    /// The id of the rule: a built-in one, or a dynamic one of the rule file.
    pub rule: String,
    /// Where it matched: `path`, `arg:NAME`, `header:NAME`, `cookie:NAME`, `file:NAME`, `body`, …
    pub part: String,
    /// What matched, decoded, at most [`Reason::LONGEST_MATCH`] characters of it.
    pub matched: String,
    /// The family's score in that part; 0 for a dynamic rule, or a rule with an action of its own.
    pub score: u32,
}

impl Reason {
    /// How many characters of the match, and of the part's name, a reason quotes.
    pub const LONGEST_MATCH: usize = 80;
}

/// The name of the header by which the host says what the client's address is: that of the first hop which is not a trusted
/// proxy.
pub const CLIENT: &str = ":client";

/// The name of the header by which the host says what is to happen to what the rules cannot inspect: the
/// [name](Verdict::name) of a verdict.
pub const IF_UNREAD: &str = ":if-unread";

/// The version of the format, its first byte.
pub const VERSION: u8 = 1;

/// Writes a request in the place of what is in `buffer`.
///
/// `headers` are pairs of name and value, in the order in which they came.
///
/// # Errors
/// [`FieldTooLong`]. The buffer's content is then of no use.
pub fn encode<'a>(
    buffer: &mut Vec<u8>,
    method: &[u8],
    target: &[u8],
    headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    body: &[u8],
) -> Result<(), FieldTooLong> {
    buffer.clear();
    buffer.extend([VERSION, 0, 0]);
    buffer.extend(short(method.len())?);
    buffer.extend(method);
    buffer.extend(long(target.len())?);
    buffer.extend(target);
    let mut count: u16 = 0;
    for (name, value) in headers {
        count = count.checked_add(1).ok_or(FieldTooLong)?;
        buffer.extend(short(name.len())?);
        buffer.extend(long(value.len())?);
        buffer.extend(name);
        buffer.extend(value);
    }
    buffer.extend(long(body.len())?);
    buffer.extend(body);
    buffer[1..3].copy_from_slice(&count.to_le_bytes());
    Ok(())
}

fn short(length: usize) -> Result<[u8; 2], FieldTooLong> {
    u16::try_from(length).map(u16::to_le_bytes).map_err(|_| FieldTooLong)
}

fn long(length: usize) -> Result<[u8; 4], FieldTooLong> {
    u32::try_from(length).map(u32::to_le_bytes).map_err(|_| FieldTooLong)
}

/// A request, borrowed from the bytes that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method, as it was sent.
    pub method: &'a [u8],
    /// Path and query, as they were sent.
    pub target: &'a [u8],
    /// The body, or as much of it as the host cared to copy.
    pub body: &'a [u8],
    headers: Headers<'a>,
}

impl<'a> Request<'a> {
    /// Reads a request that [`encode`] wrote. Every length is checked here, once.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not exactly one request.
    pub fn decode(bytes: &'a [u8]) -> Result<Request<'a>, DecodeError> {
        let mut input = Reader { rest: bytes };
        if input.take(1)? != [VERSION] {
            return Err(DecodeError::Version);
        }
        let count = input.short()?;
        let length = input.short()?;
        let method = input.take(length)?;
        let length = input.long()?;
        let target = input.take(length)?;
        let start = input.rest;
        for _ in 0..count {
            input.header()?;
        }
        let headers = Headers { rest: &start[..start.len() - input.rest.len()] };
        let length = input.long()?;
        let body = input.take(length)?;
        if !input.rest.is_empty() {
            return Err(DecodeError::TrailingBytes);
        }
        Ok(Request { method, target, body, headers })
    }

    /// The headers, as pairs of name and value, in the order in which they came.
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }
}

/// The headers of a [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut input = Reader { rest: self.rest };
        let header = input.header().ok()?;
        self.rest = input.rest;
        Some(header)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn short(&mut self) -> Result<usize, DecodeError> {
        let bytes = self.take(2)?;
        Ok(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    }

    fn long(&mut self) -> Result<usize, DecodeError> {
        let bytes = self.take(4)?;
        usize::try_from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .map_err(|_| DecodeError::Truncated)
    }

    fn header(&mut self) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
        let name = self.short()?;
        let value = self.long()?;
        Ok((self.take(name)?, self.take(value)?))
    }
}

/// A length, or the number of headers, is more than the format can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldTooLong;

impl fmt::Display for FieldTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field of the request is longer than the format can say")
    }
}

impl std::error::Error for FieldTooLong {}

/// Why bytes are not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The first byte is not [`VERSION`].
    Version,
    /// A length points behind the end.
    Truncated,
    /// Something follows the body.
    TrailingBytes,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::Version => "the request has a format version that these rules do not read",
            DecodeError::Truncated => "a length in the request points behind its end",
            DecodeError::TrailingBytes => "there are bytes behind the request's body",
        })
    }
}

impl std::error::Error for DecodeError {}

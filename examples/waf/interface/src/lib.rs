//! How a request is written into the buffer of a WAF module.
//!
//! The host writes, the module reads: one copy of the bytes, no allocation on either side. Integers are little-endian.
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
//! Nothing follows the body. Names and values are bytes, not text: what an attacker sends need not be UTF-8.
#![no_std]
#![forbid(unsafe_code)]

use core::fmt;

/// The version of the format, its first byte.
pub const VERSION: u8 = 1;

/// Writes a request and returns how many bytes it took.
///
/// `headers` are pairs of name and value, in the order in which they came.
///
/// # Errors
/// [`EncodeError`] if `buffer` is too small, or a length does not fit its field. The buffer's content is then of no use.
pub fn encode<'a>(
    buffer: &mut [u8],
    method: &[u8],
    target: &[u8],
    headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    body: &[u8],
) -> Result<usize, EncodeError> {
    let mut out = Writer { buffer, at: 0 };
    out.bytes(&[VERSION, 0, 0])?;
    out.short(method.len())?;
    out.bytes(method)?;
    out.long(target.len())?;
    out.bytes(target)?;
    let mut count: u16 = 0;
    for (name, value) in headers {
        count = count.checked_add(1).ok_or(EncodeError::FieldTooLong)?;
        out.short(name.len())?;
        out.long(value.len())?;
        out.bytes(name)?;
        out.bytes(value)?;
    }
    out.long(body.len())?;
    out.bytes(body)?;
    let Writer { buffer, at } = out;
    buffer[1..3].copy_from_slice(&count.to_le_bytes());
    Ok(at)
}

struct Writer<'b> {
    buffer: &'b mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let end = self.at.checked_add(bytes.len()).ok_or(EncodeError::BufferTooSmall)?;
        self.buffer.get_mut(self.at..end).ok_or(EncodeError::BufferTooSmall)?.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    fn short(&mut self, length: usize) -> Result<(), EncodeError> {
        let length = u16::try_from(length).map_err(|_| EncodeError::FieldTooLong)?;
        self.bytes(&length.to_le_bytes())
    }

    fn long(&mut self, length: usize) -> Result<(), EncodeError> {
        let length = u32::try_from(length).map_err(|_| EncodeError::FieldTooLong)?;
        self.bytes(&length.to_le_bytes())
    }
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

/// Why a request could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The request is larger than the buffer.
    BufferTooSmall,
    /// A length, or the number of headers, does not fit its field.
    FieldTooLong,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EncodeError::BufferTooSmall => "the request is larger than the module's buffer: cut the body shorter",
            EncodeError::FieldTooLong => "a field of the request is longer than the format can say",
        })
    }
}

impl core::error::Error for EncodeError {}

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
            DecodeError::Version => "the request has a format version that this module does not read",
            DecodeError::Truncated => "a length in the request points behind its end",
            DecodeError::TrailingBytes => "there are bytes behind the request's body",
        })
    }
}

impl core::error::Error for DecodeError {}

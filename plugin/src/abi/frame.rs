//! One call of an interface's method, as it passes the C ABI.

use super::buffer::Buffer;
use super::status::Status;
use crate::interface::{Argument, Reply};
use crate::{CallError, Malformed};

/// Arguments in, words and bytes out. The caller owns it, and lends it for the call.
#[derive(Debug)]
#[repr(C)]
pub struct Frame {
    /// The arguments.
    pub arguments: *const Argument<'static>,
    /// How many.
    pub argument_count: u32,
    /// For how many words there is room.
    pub word_count: u32,
    /// Room for the words of the answer.
    pub words: *mut u64,
    /// The bytes of the answer, or the text of the error: its message, and those of its sources behind
    /// [separators](super::SOURCE_SEPARATOR).
    pub output: Buffer,
}

impl Frame {
    /// Makes a call with these arguments, and this room for the answer: both have to live until the call has been
    /// [finished](Frame::finish).
    #[inline]
    pub fn new(arguments: &[Argument<'_>], words: &mut [u64]) -> Frame {
        Frame {
            arguments: arguments.as_ptr().cast(),
            argument_count: arguments.len() as u32,
            word_count: words.len() as u32,
            words: words.as_mut_ptr(),
            output: Buffer::EMPTY,
        }
    }

    /// Returns what the call came to. `text` makes a message of an error's bytes.
    ///
    /// # Errors
    /// By the status, or because `read` cannot read the answer.
    ///
    /// # Safety
    /// What [`new`](Frame::new) was given must still live, and since then the frame must only have been lent for one call,
    /// by rule P4 (or H4) of the [ABI](super).
    pub unsafe fn finish<R>(
        self,
        status: Status,
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
        text: impl Fn(&[u8]) -> String,
    ) -> Result<R, CallError> {
        let Frame { words, word_count, output, .. } = self;
        // SAFETY: the two fields are those of the slice that `new` was given, which still lives; P4: they were left in
        // place, and the call that used the words is over.
        let words = unsafe { std::slice::from_raw_parts(words, word_count as usize) };
        // SAFETY: B1: the output is empty or as the other side filled it (P4), and `self` is consumed, so this is the only
        // time.
        unsafe { finish(status, words, output, read, text) }
    }

    /// Answers a call: `answer` gets the arguments and the room for words, and gives the bytes.
    ///
    /// # Safety
    /// The frame must be lent for this call by rule P4 (or H4) of the [ABI](super).
    pub unsafe fn answer_with(
        &mut self,
        answer: impl FnOnce(&[Argument<'_>], &mut [u64]) -> Result<Vec<u8>, CallError>,
    ) -> Status {
        // SAFETY: P4: arguments and words are valid during the call, as many as the counts say, and the words are nobody
        // else's.
        let (arguments, words) =
            unsafe { (slice(self.arguments, self.argument_count), slice_mut(self.words, self.word_count)) };
        let (status, bytes) = match answer(arguments, words) {
            Ok(bytes) => (Status::OK, bytes),
            Err(error) => (Status::of(error.kind()), error.to_wire()),
        };
        if !bytes.is_empty() {
            self.output = Buffer::new(bytes);
        }
        status
    }
}

/// Returns what a call came to, whose words and output are these. `text` makes a message of an error's bytes.
///
/// # Errors
/// By the status, or because `read` cannot read the answer.
///
/// # Safety
/// The output must be empty, or as the other side filled it by rule B1 of the [ABI](super), and not released yet.
#[inline]
pub unsafe fn finish<R>(
    status: Status,
    words: &[u64],
    output: Buffer,
    read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    text: impl Fn(&[u8]) -> String,
) -> Result<R, CallError> {
    let take = |bytes: &[u8]| {
        status.into_result(bytes, &text)?;
        Ok(read(&mut Reply::new(words, bytes))?)
    };
    // SAFETY: B1, which this function demands as `with` does; the output is consumed.
    unsafe { output.with(take) }
}

/// # Safety
/// `data` must be valid for reads of `count` values during 'a. If there are none, it may be anything: C has null there.
pub(crate) unsafe fn slice<'a, T>(data: *const T, count: u32) -> &'a [T] {
    // SAFETY: this function's own condition, where there are values at all.
    if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, count as usize) } }
}

/// # Safety
/// `data` must be valid for reads and writes of `count` values during 'a, and used by nobody else. If there are none, it
/// may be anything: C has null there.
pub(crate) unsafe fn slice_mut<'a, T>(data: *mut T, count: u32) -> &'a mut [T] {
    // SAFETY: this function's own condition, where there are values at all.
    if count == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(data, count as usize) } }
}

//! What crosses, byte by byte: errors as a status and a text, and a [`Frame`](super::Frame) in the memory of a module.
//!
//! A library shares its memory with the host, and gets a frame by its address. A module has a memory of its own, with
//! addresses of 32 bits and little-endian numbers: its host writes the frame there, with all that it points to.

use super::Status;
use crate::{Argument, CallError, CallErrorKind};

/// The size of a [`Frame`](super::Frame) in a module, in bytes.
pub const FRAME_SIZE: usize = 32;
/// The size of an [`Argument`], in bytes; the same on every machine.
pub const ARGUMENT_SIZE: usize = 16;
/// Where the [output](super::Frame::output) of a frame in a module begins: the address of its bytes, and their length.
pub const OUTPUT_OFFSET: usize = 16;

// What the host of modules writes is what a module reads.
#[cfg(target_arch = "wasm32")]
const _: () = {
    use super::{Buffer, Frame};
    use std::mem::offset_of;
    assert!(size_of::<Frame>() == FRAME_SIZE && size_of::<Argument<'_>>() == ARGUMENT_SIZE);
    assert!(offset_of!(Frame, arguments) == 0 && offset_of!(Frame, argument_count) == 4);
    assert!(offset_of!(Frame, word_count) == 8 && offset_of!(Frame, words) == 12);
    assert!(offset_of!(Frame, output) == OUTPUT_OFFSET);
    assert!(offset_of!(Buffer, data) == 0 && offset_of!(Buffer, len) == 4);
};

/// A call that is to be written into a module's memory as one piece: the frame, its arguments, room for the words of the
/// answer, and the bytes that the arguments lend.
#[derive(Clone, Copy, Debug)]
pub struct GuestCall<'a> {
    arguments: &'a [Argument<'a>],
    word_count: usize,
}

impl<'a> GuestCall<'a> {
    /// Makes a call with these arguments, and room for so many words of the answer.
    #[inline]
    pub fn new(arguments: &'a [Argument<'a>], word_count: usize) -> GuestCall<'a> {
        GuestCall { arguments, word_count }
    }

    /// Returns the size of the whole piece, in bytes.
    #[inline]
    pub fn size(&self) -> usize {
        let lent = self.arguments.iter().filter_map(Argument::as_bytes).map(<[u8]>::len);
        self.bytes_offset() + lent.sum::<usize>()
    }

    /// Returns where the words of the answer are in the piece.
    #[inline]
    pub fn words_offset(&self) -> usize {
        FRAME_SIZE + ARGUMENT_SIZE * self.arguments.len()
    }

    /// Returns where the bytes of the arguments begin in the piece, which is the size of what comes before.
    #[inline]
    pub fn bytes_offset(&self) -> usize {
        self.words_offset() + size_of::<u64>() * self.word_count
    }

    /// Writes the call into `place`, which lies at address `at` of the module.
    ///
    /// # Panics
    /// `place` is smaller than [`size`](GuestCall::size).
    #[inline]
    pub fn write(&self, at: u32, place: &mut [u8]) {
        let (words_at, bytes_at) = (self.words_offset(), self.bytes_offset());
        let address = |offset: usize| at.wrapping_add(offset as u32);
        let (frame, bytes) = place.split_at_mut(bytes_at);
        let (argument_count, word_count) = (self.arguments.len() as u32, self.word_count as u32);
        let fields = [address(FRAME_SIZE), argument_count, word_count, address(words_at), 0, 0, 0, 0];
        for (place, field) in frame.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let mut copied = 0;
        for (place, argument) in frame[FRAME_SIZE..].chunks_exact_mut(ARGUMENT_SIZE).zip(self.arguments) {
            let (word, len) = match (argument.as_word(), argument.as_bytes()) {
                (Some(word), _) => (word, Argument::IS_WORD),
                (None, lent) => {
                    let lent = lent.unwrap_or_default();
                    bytes[copied..][..lent.len()].copy_from_slice(lent);
                    let at = u64::from(address(bytes_at + copied));
                    copied += lent.len();
                    (at, lent.len() as u64)
                }
            };
            place[..8].copy_from_slice(&word.to_le_bytes());
            place[8..].copy_from_slice(&len.to_le_bytes());
        }
        frame[words_at..].fill(0);
    }

    /// Reads the answer's words out of what is in `place` after the call: the first
    /// [`bytes_offset`](GuestCall::bytes_offset) bytes of the piece.
    ///
    /// # Panics
    /// `place` is smaller than that.
    #[inline]
    pub fn read_words(&self, place: &[u8], words: &mut [u64]) {
        for (word, bytes) in words.iter_mut().zip(place[self.words_offset()..self.bytes_offset()].chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
    }
}

/// The fields of a frame in a module's memory, which need not be trusted: addresses and numbers that the module wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestFrame {
    /// The address of the arguments, of [`ARGUMENT_SIZE`] bytes each.
    pub arguments: u32,
    /// How many.
    pub argument_count: u32,
    /// For how many words there is room.
    pub word_count: u32,
    /// The address of that room.
    pub words: u32,
    /// The address of the answer's bytes, or of the text of the error.
    pub output: u32,
    /// How many bytes.
    pub output_len: u32,
}

impl GuestFrame {
    /// Reads the fields from the bytes of a frame; `None` if there are fewer than [`FRAME_SIZE`].
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<GuestFrame> {
        let fields = bytes.get(..FRAME_SIZE)?;
        let field = |at: usize| u32::from_le_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]);
        Some(GuestFrame {
            arguments: field(0),
            argument_count: field(4),
            word_count: field(8),
            words: field(12),
            output: field(OUTPUT_OFFSET),
            output_len: field(OUTPUT_OFFSET + 4),
        })
    }
}

/// Reads an argument that a module wrote, of [`ARGUMENT_SIZE`] bytes: a word, or the address and the length of bytes in
/// its memory. `None` if there are fewer bytes.
pub fn guest_argument(bytes: &[u8]) -> Option<GuestArgument> {
    let (word, rest) = bytes.split_first_chunk()?;
    let (word, len) = (u64::from_le_bytes(*word), u64::from_le_bytes(*rest.first_chunk()?));
    Some(match len {
        Argument::IS_WORD => GuestArgument::Word(word),
        len => GuestArgument::Bytes { address: word, len },
    })
}

/// An [`Argument`] as a module wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestArgument {
    /// A word.
    Word(u64),
    /// Bytes that should be in its memory.
    Bytes {
        /// Where.
        address: u64,
        /// How many.
        len: u64,
    },
}

impl Status {
    /// Returns the status that tells the other side of an error of this kind. Kinds that only a host can make are
    /// failures to a plugin.
    pub fn of(kind: CallErrorKind) -> Status {
        match kind {
            CallErrorKind::Panicked => Status::PANICKED,
            CallErrorKind::Unsupported => Status::UNSUPPORTED,
            CallErrorKind::Malformed => Status::MALFORMED,
            _ => Status::FAILED,
        }
    }

    /// Returns the error that the other side tells of with this status, in these bytes: its message and those of its
    /// sources, between [separators](super::SOURCE_SEPARATOR). `text` makes text of one.
    ///
    /// # Errors
    /// It is not [`OK`](Status::OK). A status that the ABI does not have is a [malformed](CallErrorKind::Malformed)
    /// answer.
    #[inline]
    pub fn into_result(self, bytes: &[u8], text: impl Fn(&[u8]) -> String) -> Result<(), CallError> {
        let kind = match self {
            Status::OK => return Ok(()),
            Status::FAILED => CallErrorKind::Failed,
            Status::PANICKED => CallErrorKind::Panicked,
            Status::UNSUPPORTED => return Err(CallError::unsupported()),
            Status::MALFORMED => CallErrorKind::Malformed,
            Status(unknown) => {
                let text = format!("the plugin answered with the unknown status {unknown}: it does not follow the ABI");
                return Err(CallError::new(CallErrorKind::Malformed, text));
            }
        };
        Err(CallError::from_wire(kind, bytes, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_for_a_module_is_what_it_would_read() {
        let (arguments, at) = ([Argument::word(7), Argument::bytes(b"abc"), Argument::bytes(b"")], 0x1000);
        let call = GuestCall::new(&arguments, 2);
        let mut place = vec![0xee; call.size()];
        call.write(at, &mut place);
        let frame = GuestFrame::read(&place).unwrap();
        let address = |offset: usize| at + offset as u32;
        assert_eq!((frame.arguments, frame.argument_count), (address(FRAME_SIZE), 3));
        assert_eq!((frame.words, frame.word_count), (address(call.words_offset()), 2));
        assert_eq!((frame.output, frame.output_len), (0, 0));
        let written = |index: usize| guest_argument(&place[FRAME_SIZE + ARGUMENT_SIZE * index..]).unwrap();
        let bytes_at = u64::from(address(call.bytes_offset()));
        assert_eq!(written(0), GuestArgument::Word(7));
        assert_eq!(written(1), GuestArgument::Bytes { address: bytes_at, len: 3 });
        assert_eq!(written(2), GuestArgument::Bytes { address: bytes_at + 3, len: 0 });
        assert_eq!(&place[call.bytes_offset()..], b"abc");
        place[call.words_offset()..][..16].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        let mut words = [0; 2];
        call.read_words(&place, &mut words);
        assert_eq!(words, [1, 2]);
        assert_eq!((GuestFrame::read(&place[..31]), guest_argument(&place[..15])), (None, None));
    }

    #[test]
    fn a_status_is_read_as_what_was_written() {
        for kind in [CallErrorKind::Failed, CallErrorKind::Panicked, CallErrorKind::Malformed] {
            let error = CallError::new(kind, "why").with_cause("because".to_owned()).with_cause("\x1e".to_owned());
            let read = Status::of(kind).into_result(&error.to_wire(), text).unwrap_err();
            assert_eq!(read, CallError::new(kind, "why").with_cause("because".to_owned()).with_cause(" ".to_owned()));
        }
        assert_eq!(Status::of(CallErrorKind::Unsupported).into_result(b"", text), Err(CallError::unsupported()));
        let told = Status::of(CallErrorKind::Saturated).into_result(b"", text);
        assert_eq!(told.unwrap_err().kind(), CallErrorKind::Failed);
        assert_eq!(Status::OK.into_result(b"", text), Ok(()));
        assert_eq!(Status(99).into_result(b"", text).unwrap_err().kind(), CallErrorKind::Malformed);
    }

    #[test]
    fn an_error_of_very_many_sources_is_cut() {
        let bytes = vec![super::super::SOURCE_SEPARATOR; 10_000];
        let error = Status::FAILED.into_result(&bytes, text).unwrap_err();
        let sources = std::iter::successors(std::error::Error::source(&error), |error| error.source());
        assert_eq!(sources.count(), 16);
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }
}

//! What a declared interface is to both sides, and the transport under it.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::{CallError, Error, Malformed, Stop};

/// An interface: `dyn Trait` of a trait that is declared with [`#[interface]`](macro@crate::interface), which writes this
/// implementation.
pub trait Interface: Send + Sync + 'static {
    /// Its name, for instance `"price-feed"`.
    const NAME: &'static str;
    /// Its version: major and minor. Within a major version methods are only added.
    const VERSION: (u32, u32);
    /// Its methods with their signatures, as text: what a plugin carries, and a host compares.
    const CONTRACT: &'static str;
    /// What identifies it: name, version, and a hash of the methods that every version of this major has.
    const ID: &'static str;

    /// Makes an implementation of the interface that calls the plugin behind `link`.
    fn proxy<L: Transport>(link: L) -> Box<Self>;

    /// Returns what a [`proxy`](Interface::proxy) was made of; `None` for an implementation that is not a proxy.
    fn link(&self) -> Option<&dyn Link>;

    /// Calls a method by its number, the place in the contract.
    ///
    /// # Errors
    /// There is no such method, the arguments are not its own, or it returned a [`CallError`] of its own.
    fn dispatch(&self, method: u32, arguments: &mut Arguments<'_>, answer: &mut Answer<'_>) -> Result<(), CallError>;
}

/// A connection to one plugin: what does not depend on the interface.
pub trait Link: Send + Sync + 'static {
    /// Saves the plugin's state: its schema and the bytes; `None` if it has none.
    ///
    /// # Errors
    /// Those of the plugin.
    fn save(&self) -> Result<Option<(String, Vec<u8>)>, Error>;

    /// Hands a state over.
    ///
    /// # Errors
    /// Those of the plugin.
    fn restore(&self, schema: &str, state: &[u8]) -> Result<(), Error>;

    /// Runs the plugin until `stop` is raised.
    ///
    /// # Errors
    /// Those of the plugin.
    fn run(&self, stop: &Stop) -> Result<(), Error>;

    /// Shows the calls of methods that are marked `#[repeatable]` to a watcher, until that says that it is over.
    ///
    /// # Errors
    /// This link cannot, or another one watches.
    fn watch(&self, watcher: Arc<dyn CallWatcher>) -> Result<(), NotWatched> {
        let _ = watcher;
        Err(NotWatched::Unsupported)
    }

    /// Makes a call that was watched, and returns the bytes of the answer. The words go to `words`, which is as long as they
    /// were.
    ///
    /// # Errors
    /// As [`Transport::invoke`].
    fn repeat(&self, method: u32, arguments: &[Argument<'_>], words: &mut [u64]) -> Result<Vec<u8>, CallError> {
        let _ = (method, arguments, words);
        Err(CallError::unsupported())
    }
}

/// Sees calls: how a host tries them on another plugin.
pub trait CallWatcher: Send + Sync + 'static {
    /// Says whether the next call is to be shown.
    fn interest(&self) -> Interest;

    /// Shows a call that was made, with words and bytes of its answer, or why there is none. An answer has room for so many
    /// `words`.
    fn saw(&self, method: u32, arguments: &[Argument<'_>], answer: Result<(&[u64], &[u8]), &CallError>, words: usize);
}

/// Why a [`CallWatcher`] is shown nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWatched {
    /// The link carries no calls that could be shown.
    Unsupported,
    /// Another one watches, and is not over.
    Taken,
}

/// Whether a [`CallWatcher`] is to be shown a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// It is.
    Wanted,
    /// Not this one.
    Skipped,
    /// Neither this one nor any other.
    Over,
}

/// A [`Link`] that carries calls.
pub trait Transport: Link + Sized {
    /// Calls a method, by the number that *this side* gives it. `words` is room for the answer, which `read` takes.
    ///
    /// # Errors
    /// The plugin gave no answer, or `read` cannot read it. A method that the other side does not have is
    /// [unsupported](crate::CallErrorKind::Unsupported).
    fn invoke<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError>;

    /// Calls a method that is marked `#[repeatable]`: the same, where nobody [watches](Link::watch).
    ///
    /// # Errors
    /// As [`invoke`](Transport::invoke).
    #[inline]
    fn invoke_repeatable<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError> {
        self.invoke(method, arguments, words, read)
    }
}

/// One argument on its way: a machine word, or bytes that are lent for the call.
///
/// It has the same layout on every platform: C reads it as `struct { uint64_t word; uint64_t len; }`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Argument<'a> {
    /// The word, or the address of the bytes.
    word: u64,
    /// How many bytes, or [`Argument::IS_WORD`].
    len: u64,
    lent: PhantomData<&'a [u8]>,
}

impl<'a> Argument<'a> {
    /// Stands in the place of a length for what is no bytes.
    pub const IS_WORD: u64 = u64::MAX;

    /// Passes a word.
    #[inline]
    pub const fn word(word: u64) -> Argument<'a> {
        Argument { word, len: Argument::IS_WORD, lent: PhantomData }
    }

    /// Lends bytes.
    #[inline]
    pub fn bytes(bytes: &'a [u8]) -> Argument<'a> {
        Argument { word: bytes.as_ptr().expose_provenance() as u64, len: bytes.len() as u64, lent: PhantomData }
    }

    /// Returns the word, if it is one.
    #[inline]
    pub fn as_word(&self) -> Option<u64> {
        (self.len == Argument::IS_WORD).then_some(self.word)
    }

    /// Returns the bytes, if it is some.
    #[inline]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.len).ok().filter(|_| self.len != Argument::IS_WORD)?;
        if len == 0 {
            return Some(&[]);
        }
        let data = std::ptr::with_exposed_provenance(self.word as usize);
        // SAFETY: an argument that is not a word was made of a slice that is lent for 'a, here or, at the ABI, on the
        // other side, which promises the same.
        Some(unsafe { std::slice::from_raw_parts(data, len) })
    }
}

/// The arguments of a call, one after the other.
#[derive(Debug)]
pub struct Arguments<'a> {
    rest: std::slice::Iter<'a, Argument<'a>>,
}

impl<'a> Arguments<'a> {
    /// Begins with the first of these.
    #[inline]
    pub fn new(arguments: &'a [Argument<'a>]) -> Arguments<'a> {
        Arguments { rest: arguments.iter() }
    }

    /// Takes the next one, which has to be bytes.
    ///
    /// # Errors
    /// It is none, or not there.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        self.rest.next().and_then(Argument::as_bytes).ok_or(Malformed("an argument should be bytes"))
    }

    /// Takes all that follow, as words.
    #[inline]
    pub(crate) fn words(&mut self) -> impl Iterator<Item = u64> {
        std::iter::from_fn(|| self.rest.next()?.as_word())
    }

    /// Refuses more arguments than were taken.
    ///
    /// # Errors
    /// There are some.
    #[inline]
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.len() == 0 { Ok(()) } else { Err(Malformed("there are more arguments than the method has")) }
    }
}

/// Where a method's answer goes: words into room that the caller gave, and bytes.
#[derive(Debug)]
pub struct Answer<'a> {
    words: std::slice::IterMut<'a, u64>,
    pub(crate) bytes: Vec<u8>,
    /// More words were given than there is room for.
    pub(crate) is_cut: bool,
}

impl<'a> Answer<'a> {
    /// Makes an empty answer with room for so many words.
    #[inline]
    pub fn new(words: &'a mut [u64]) -> Answer<'a> {
        Answer { words: words.iter_mut(), bytes: Vec::new(), is_cut: false }
    }

    /// Adds a word.
    #[inline]
    pub fn word(&mut self, word: u64) {
        match self.words.next() {
            Some(place) => *place = word,
            None => self.is_cut = true,
        }
    }

    /// Returns the bytes that were given.
    #[inline]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Gives the bytes, of which an answer has at most one piece.
    #[inline]
    pub fn bytes(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
    }
}

/// The answer of a call, as its caller reads it.
#[derive(Debug)]
pub struct Reply<'a> {
    words: std::slice::Iter<'a, u64>,
    bytes: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Makes a reply of these words and bytes.
    #[inline]
    pub fn new(words: &'a [u64], bytes: &'a [u8]) -> Reply<'a> {
        Reply { words: words.iter(), bytes }
    }

    /// Takes the words, one after the other.
    #[inline]
    pub fn words(&mut self) -> impl Iterator<Item = u64> {
        // Each by itself: the other side has just written them so, and a read over two of them would wait until both have
        // left the processor's store buffer, which takes longer than the rest of the call.
        // SAFETY: a reference is valid for reads.
        self.words.by_ref().map(|word| unsafe { std::ptr::read_volatile(word) })
    }

    /// Returns the words that were not taken, without taking them.
    #[inline]
    pub fn words_left(&self) -> &'a [u64] {
        self.words.as_slice()
    }

    /// Returns the bytes.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

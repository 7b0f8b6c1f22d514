//! How values become arguments and answers. The macro picks a codec for each type; nobody else calls these.

use std::marker::PhantomData;

use crate::contract::Shape;
use crate::interface::{Answer, Argument, Arguments, Reply};
use crate::schema::{Layout, Schema};
use crate::{CallError, Malformed, Plain};

/// The arguments of a call, filled by the proxy.
pub struct ArgumentList<'a, const N: usize> {
    arguments: [Argument<'a>; N],
    count: usize,
}

impl<'a, const N: usize> ArgumentList<'a, N> {
    #[inline]
    #[allow(clippy::new_without_default, reason = "only the macro makes one")]
    pub fn new() -> Self {
        ArgumentList { arguments: [Argument::word(0); N], count: 0 }
    }

    #[inline]
    fn push(&mut self, argument: Argument<'a>) {
        self.arguments[self.count] = argument;
        self.count += 1;
    }

    #[inline]
    pub fn arguments(&self) -> &[Argument<'a>] {
        &self.arguments[..self.count]
    }
}

/// The host's half of a parameter: a value becomes arguments.
pub trait Lend<V: ?Sized> {
    /// What has to live as long as the call.
    type Held;

    fn hold(&self, value: &V) -> Result<Self::Held, CallError>;

    fn lend<'a, const N: usize>(&self, value: &'a V, held: &'a Self::Held, lent: &mut ArgumentList<'a, N>);
}

/// The plugin's half of a parameter: arguments become a value, which may be lent for the call.
pub trait Take<'a, V> {
    fn take(&self, arguments: &mut Arguments<'a>) -> Result<V, Malformed>;
}

/// Both halves of an answer.
pub trait Codec<V> {
    fn give(&self, value: V, answer: &mut Answer<'_>) -> Result<(), CallError>;

    fn receive(&self, answered: &mut Reply<'_>) -> Result<V, Malformed>;
}

/// Finds out at compile time how a type crosses: its constants and its codec are those of this inherent
/// implementation if the type is plain, and those of [`ByPostcard`] if not.
pub struct Probe<T>(PhantomData<T>);

impl<T: Plain> Probe<T> {
    pub const SHAPE: Option<&'static Shape> = Some(T::SHAPE);
    pub const SLOTS: usize = T::WORDS;
    pub const WORDS: usize = T::WORDS;

    #[inline]
    pub fn codec() -> Words<T> {
        Words(PhantomData)
    }
}

/// What a type does that is not plain.
pub trait ByPostcard<T> {
    const SHAPE: Option<&'static Shape> = None;
    const SLOTS: usize = 1;
    const WORDS: usize = 0;

    fn codec() -> Postcard<T>
    where
        T: Crosses + Schema,
    {
        Postcard { encode: T::encode, decode: T::decode }
    }
}

impl<T> ByPostcard<T> for Probe<T> {}

/// Finds the description of a type at compile time: that of this inherent implementation if it has one, and that of
/// [`Undescribed`] if not. Whether it needs one is asked where its codec is made, so that the compiler says it once.
pub struct Description<T>(PhantomData<T>);

impl<T: Schema> Description<T> {
    pub const LAYOUT: &'static Layout = T::LAYOUT;
}

/// What a type has that has no description.
pub trait Undescribed<T> {
    const LAYOUT: &'static Layout = &Layout::Unknown;
}

impl<T> Undescribed<T> for Description<T> {}

/// The error type of a result whose errors are those of the call.
pub trait Fallible {
    type Value;
}

impl<T> Fallible for Result<T, CallError> {
    type Value = T;
}

/// The error type of a method that is to return the errors of calls, too.
#[diagnostic::on_unimplemented(
    message = "a call can fail, and `{Self}` cannot hold its error",
    label = "implement `From<hotslot_plugin::CallError>` for this type",
    note = "or return `Result<_, CallError>`, or say what a call that failed gives: #[on_error(value)]"
)]
pub trait OfCall {
    fn of_call(error: CallError) -> Self;
}

#[diagnostic::do_not_recommend]
impl<E: From<CallError>> OfCall for E {
    #[inline]
    fn of_call(error: CallError) -> E {
        error.into()
    }
}

/// Returns the larger one, also in constants.
pub const fn larger(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// `()`.
pub struct Unit;

impl Codec<()> for Unit {
    #[inline]
    fn give(&self, (): (), _: &mut Answer<'_>) -> Result<(), CallError> {
        Ok(())
    }

    #[inline]
    fn receive(&self, _: &mut Reply<'_>) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Plain values, as words.
pub struct Words<T>(PhantomData<T>);

const NO_VALUE: Malformed = Malformed("the words are no value of the type: is it declared the same on both sides?");

impl<T: Plain> Lend<T> for Words<T> {
    type Held = ();

    #[inline]
    fn hold(&self, _: &T) -> Result<(), CallError> {
        Ok(())
    }

    #[inline]
    fn lend<'a, const N: usize>(&self, value: &'a T, (): &'a (), lent: &mut ArgumentList<'a, N>) {
        value.put(&mut |word| lent.push(Argument::word(word)));
    }
}

impl<'a, T: Plain> Take<'a, T> for Words<T> {
    #[inline]
    fn take(&self, arguments: &mut Arguments<'a>) -> Result<T, Malformed> {
        T::get(&mut arguments.words()).ok_or(NO_VALUE)
    }
}

impl<T: Plain> Codec<T> for Words<T> {
    #[inline]
    fn give(&self, value: T, answer: &mut Answer<'_>) -> Result<(), CallError> {
        value.put(&mut |word| answer.word(word));
        Ok(())
    }

    #[inline]
    fn receive(&self, answered: &mut Reply<'_>) -> Result<T, Malformed> {
        T::get(&mut answered.words()).ok_or(NO_VALUE)
    }
}

/// The host's half of a type that crosses as bytes: what is lent is lent, without a copy.
macro_rules! lend {
    ($codec:ident, $ty:ty, $as_bytes:expr) => {
        pub struct $codec;

        impl Lend<$ty> for $codec {
            type Held = ();

            #[inline]
            fn hold(&self, _: &$ty) -> Result<(), CallError> {
                Ok(())
            }

            #[inline]
            fn lend<'a, const N: usize>(&self, value: &'a $ty, (): &'a (), lent: &mut ArgumentList<'a, N>) {
                lent.push(Argument::bytes($as_bytes(value)));
            }
        }
    };
}

/// The plugin's half for a type that is lent there, too.
macro_rules! take_lent {
    ($codec:ident, $ty:ty, $read:expr) => {
        impl<'a> Take<'a, &'a $ty> for $codec {
            #[inline]
            fn take(&self, arguments: &mut Arguments<'a>) -> Result<&'a $ty, Malformed> {
                $read(arguments.bytes()?)
            }
        }
    };
}

/// The plugin's half for a type that is owned there, and which can be an answer.
macro_rules! take_owned {
    ($codec:ident, $ty:ty, $read:expr, $into_bytes:expr) => {
        impl<'a> Take<'a, $ty> for $codec {
            #[inline]
            fn take(&self, arguments: &mut Arguments<'a>) -> Result<$ty, Malformed> {
                Ok($read(arguments.bytes()?)?.to_owned())
            }
        }

        impl Codec<$ty> for $codec {
            #[inline]
            fn give(&self, value: $ty, answer: &mut Answer<'_>) -> Result<(), CallError> {
                answer.bytes($into_bytes(value));
                Ok(())
            }

            #[inline]
            fn receive(&self, answered: &mut Reply<'_>) -> Result<$ty, Malformed> {
                Ok($read(answered.bytes())?.to_owned())
            }
        }
    };
}

fn raw(bytes: &[u8]) -> Result<&[u8], Malformed> {
    Ok(bytes)
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8"))
}

lend!(Bytes, [u8], <[u8]>::as_ref);
take_lent!(Bytes, [u8], raw);
lend!(Text, str, str::as_bytes);
take_lent!(Text, str, text);
lend!(OwnedBytes, Vec<u8>, Vec::as_slice);
take_owned!(OwnedBytes, Vec<u8>, raw, std::convert::identity);
lend!(OwnedText, String, String::as_bytes);
take_owned!(OwnedText, String, text, String::into_bytes);

/// `Result<T, E>`: a word that says which, then that one.
pub struct ResultOf<A, B>(pub A, pub B);

impl<T, E, A: Codec<T>, B: Codec<E>> Codec<Result<T, E>> for ResultOf<A, B> {
    #[inline]
    fn give(&self, value: Result<T, E>, answer: &mut Answer<'_>) -> Result<(), CallError> {
        answer.word(u64::from(value.is_err()));
        match value {
            Ok(value) => self.0.give(value, answer),
            Err(error) => self.1.give(error, answer),
        }
    }

    #[inline]
    fn receive(&self, answered: &mut Reply<'_>) -> Result<Result<T, E>, Malformed> {
        let which = answered.words().next();
        match which {
            Some(0) => self.0.receive(answered).map(Ok),
            Some(1) => self.1.receive(answered).map(Err),
            _ => Err(Malformed("a result is neither Ok nor Err")),
        }
    }
}

/// Values of serde, as bytes in the postcard format. Whether the type is of serde was asked when this was made, and only
/// there, so that the compiler says it once.
pub struct Postcard<T> {
    encode: fn(&T) -> Result<Vec<u8>, CallError>,
    decode: fn(&[u8]) -> Result<T, Malformed>,
}

/// A type that can cross by serde.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot cross an interface",
    label = "neither plain nor of serde",
    note = "for a struct of numbers or an enum without fields: #[derive(hotslot_plugin::Plain)]",
    note = "for anything else: #[derive(serde::Serialize, serde::Deserialize, hotslot_plugin::Schema)], and the feature \
            `postcard` of hotslot-plugin"
)]
pub trait Crosses: Sized {
    fn encode(&self) -> Result<Vec<u8>, CallError>;

    fn decode(bytes: &[u8]) -> Result<Self, Malformed>;
}

/// The bytes that a value of serde is given to begin with.
#[cfg(feature = "postcard")]
const FIRST_ROOM: usize = 256;

/// Where a value of serde is written: postcard's own vector begins without any room.
#[cfg(feature = "postcard")]
struct Room(Vec<u8>);

#[cfg(feature = "postcard")]
impl postcard::ser_flavors::Flavor for Room {
    type Output = Vec<u8>;

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

#[cfg(feature = "postcard")]
#[diagnostic::do_not_recommend]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Crosses for T {
    fn encode(&self) -> Result<Vec<u8>, CallError> {
        // Most values fit at once: growing from nothing would take longer than writing them.
        postcard::serialize_with_flavor(self, Room(Vec::with_capacity(FIRST_ROOM)))
            .map_err(|error| CallError::malformed(&format!("a value cannot be written: {error}")))
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let malformed =
            "the bytes are no value of the type, or one that is too large: is it declared the same on both sides?";
        crate::bounded::from_bytes(bytes).ok_or(Malformed(malformed))
    }
}

impl<T> Lend<T> for Postcard<T> {
    type Held = Vec<u8>;

    fn hold(&self, value: &T) -> Result<Vec<u8>, CallError> {
        (self.encode)(value)
    }

    fn lend<'a, const N: usize>(&self, _: &'a T, held: &'a Vec<u8>, lent: &mut ArgumentList<'a, N>) {
        lent.push(Argument::bytes(held));
    }
}

impl<'a, T> Take<'a, T> for Postcard<T> {
    fn take(&self, arguments: &mut Arguments<'a>) -> Result<T, Malformed> {
        (self.decode)(arguments.bytes()?)
    }
}

impl<T> Codec<T> for Postcard<T> {
    fn give(&self, value: T, answer: &mut Answer<'_>) -> Result<(), CallError> {
        answer.bytes((self.encode)(&value)?);
        Ok(())
    }

    fn receive(&self, answered: &mut Reply<'_>) -> Result<T, Malformed> {
        (self.decode)(answered.bytes())
    }
}

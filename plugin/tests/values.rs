//! Whatever value a type has, it comes back as it was; and whatever arguments and answers are made up, they are an error
//! or a value, and never a panic.

use hotslot_plugin::{
    Answer, Argument, Arguments, CallError, CallErrorKind, Error, HarnessPlugin, Interface, Link, Malformed, Plain,
    Reply, Stop, Transport, harness, interface,
};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug, Default, PartialEq, Plain)]
enum Side {
    #[default]
    Buy = 1,
    Sell = -1,
    Neither = i32::MAX as isize,
}

#[derive(Clone, Copy, Debug, PartialEq, Plain)]
struct Level {
    side: Side,
    price: Option<i64>,
    steps: [Option<u8>; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Plain)]
struct Book(Level, [Level; 2], char, bool);

#[derive(Clone, Copy, Debug, Default, PartialEq, Plain)]
struct Nothing;

/// An error that can hold that of a call.
#[derive(Clone, Copy, Debug, PartialEq, Plain)]
enum Refusal {
    Unwilling,
    Call,
}

impl From<CallError> for Refusal {
    fn from(_: CallError) -> Refusal {
        Refusal::Call
    }
}

/// Declares an interface whose methods give back what they get, and a plugin of it.
macro_rules! echo {
    ($name:ident, $plugin:ident: $($method:ident: $ty:ty;)*) => {
        #[interface(version = "1.0")]
        trait $name {
            $( fn $method(&self, value: $ty) -> Result<$ty, CallError>; )*
            fn text(&self, value: &str) -> Result<String, CallError>;
            fn bytes(&self, value: &[u8]) -> Result<Vec<u8>, CallError>;
            fn either(&self, is_error: bool, value: $crate::Level) -> Result<$crate::Level, $crate::Refusal>;
            fn both(&self, first: $crate::Book, bytes: &[u8], second: &$crate::Book) -> Result<$crate::Book, CallError>;
        }

        #[derive(Default)]
        struct $plugin;

        impl $name for $plugin {
            $(
                fn $method(&self, value: $ty) -> Result<$ty, CallError> {
                    Ok(value)
                }
            )*

            fn text(&self, value: &str) -> Result<String, CallError> {
                Ok(value.to_owned())
            }

            fn bytes(&self, value: &[u8]) -> Result<Vec<u8>, CallError> {
                Ok(value.to_vec())
            }

            fn either(&self, is_error: bool, value: $crate::Level) -> Result<$crate::Level, $crate::Refusal> {
                if is_error { Err($crate::Refusal::Unwilling) } else { Ok(value) }
            }

            fn both(&self, first: $crate::Book, bytes: &[u8], second: &$crate::Book) -> Result<$crate::Book, CallError> {
                Ok(if bytes.len() % 2 == 0 { first } else { *second })
            }
        }

        /// Calls every method with what another side made up, and gives what came of it.
        fn call_all(plugin: &dyn $name, level: $crate::Level, book: $crate::Book) -> Vec<Result<(), CallErrorKind>> {
            let kind = |error: CallError| error.kind();
            vec![
                plugin.text("").map(drop).map_err(kind),
                plugin.bytes(b"").map(drop).map_err(kind),
                // Its error type says no more than that there was one.
                plugin.either(true, level).map(drop).map_err(|_| CallErrorKind::Malformed),
                plugin.both(book, b"", &book).map(drop).map_err(kind),
                $( plugin.$method(Default::default()).map(drop).map_err(kind), )*
            ]
        }
    };
}

impl Default for Level {
    fn default() -> Level {
        Level { side: Side::Buy, price: None, steps: [None; 3] }
    }
}

impl Default for Book {
    fn default() -> Book {
        Book(Level::default(), [Level::default(); 2], 'x', false)
    }
}

echo! {
    Echo, Echoes:
    as_u8: u8;
    as_u16: u16;
    as_u32: u32;
    as_u64: u64;
    as_i8: i8;
    as_i16: i16;
    as_i32: i32;
    as_i64: i64;
    as_f32: f32;
    as_f64: f64;
    as_bool: bool;
    as_char: char;
    array: [i16; 4];
    option: Option<u32>;
    nested: Option<[Option<bool>; 2]>;
    side: Side;
    level: Level;
    book: Book;
    nothing: Nothing;
    owned_text: String;
    owned_bytes: Vec<u8>;
}

/// How many methods [`Echo`] has.
const METHODS: u32 = 25;

fn plugin() -> HarnessPlugin<dyn Echo> {
    harness!(Echoes as Echo).start().unwrap()
}

fn side() -> BoxedStrategy<Side> {
    prop_oneof![Just(Side::Buy), Just(Side::Sell), Just(Side::Neither)].boxed()
}

fn level() -> BoxedStrategy<Level> {
    let parts = (side(), any::<Option<i64>>(), any::<[Option<u8>; 3]>());
    parts.prop_map(|(side, price, steps)| Level { side, price, steps }).boxed()
}

fn book() -> BoxedStrategy<Book> {
    (level(), [level(), level()], any::<char>(), any::<bool>()).prop_map(|(a, b, c, d)| Book(a, b, c, d)).boxed()
}

/// A word or bytes, of which many are values of something.
#[derive(Clone, Debug)]
enum GivenArgument {
    Word(u64),
    Bytes(Vec<u8>),
}

impl GivenArgument {
    fn lent(&self) -> Argument<'_> {
        match self {
            GivenArgument::Word(word) => Argument::word(*word),
            GivenArgument::Bytes(bytes) => Argument::bytes(bytes),
        }
    }
}

fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..3u64,
        Just(u64::MAX),
        any::<u64>(),
        any::<char>().prop_map(u64::from),
        any::<i8>().prop_map(|n| n as u64)
    ]
}

fn made() -> impl Strategy<Value = GivenArgument> {
    prop_oneof![
        6 => word().prop_map(GivenArgument::Word),
        1 => any::<Vec<u8>>().prop_map(GivenArgument::Bytes),
        1 => any::<String>().prop_map(|text| GivenArgument::Bytes(text.into_bytes())),
    ]
}

/// Another side that answers with what was made up.
struct MadeUp {
    words: Vec<u64>,
    bytes: Vec<u8>,
}

impl Transport for MadeUp {
    fn invoke<R>(
        &self,
        _: u32,
        _: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError> {
        for (place, word) in words.iter_mut().zip(&self.words) {
            *place = *word;
        }
        Ok(read(&mut Reply::new(words, &self.bytes))?)
    }
}

impl Link for MadeUp {
    fn save(&self) -> Result<Option<(String, Vec<u8>)>, Error> {
        Ok(None)
    }

    fn restore(&self, _: &str, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn run(&self, _: &Stop) -> Result<(), Error> {
        Ok(())
    }
}

/// Calls a method with these arguments, as a host that follows the ABI and nothing else.
fn dispatched<I: Interface + ?Sized>(
    plugin: &I,
    method: u32,
    made: &[GivenArgument],
    room: usize,
) -> Result<(), CallError> {
    let arguments: Vec<Argument<'_>> = made.iter().map(GivenArgument::lent).collect();
    let mut words = vec![0; room];
    plugin.dispatch(method, &mut Arguments::new(&arguments), &mut Answer::new(&mut words))
}

proptest! {
    #[test]
    fn numbers_come_back_as_they_were(
        a: u8, b: u16, c: u32, d: u64, e: i8, f: i16, g: i32, h: i64, i: u32, j: u64, k: bool, l: char,
    ) {
        let plugin = plugin();
        prop_assert_eq!(plugin.as_u8(a), Ok(a));
        prop_assert_eq!(plugin.as_u16(b), Ok(b));
        prop_assert_eq!(plugin.as_u32(c), Ok(c));
        prop_assert_eq!(plugin.as_u64(d), Ok(d));
        prop_assert_eq!(plugin.as_i8(e), Ok(e));
        prop_assert_eq!(plugin.as_i16(f), Ok(f));
        prop_assert_eq!(plugin.as_i32(g), Ok(g));
        prop_assert_eq!(plugin.as_i64(h), Ok(h));
        // By their bits: one that is not a number is not equal to itself.
        prop_assert_eq!(plugin.as_f32(f32::from_bits(i)).map(f32::to_bits), Ok(i));
        prop_assert_eq!(plugin.as_f64(f64::from_bits(j)).map(f64::to_bits), Ok(j));
        prop_assert_eq!(plugin.as_bool(k), Ok(k));
        prop_assert_eq!(plugin.as_char(l), Ok(l));
    }

    #[test]
    fn what_is_made_of_plain_values_comes_back_as_it_was(
        array: [i16; 4], option: Option<u32>, nested: Option<[Option<bool>; 2]>, side in side(), level in level(),
    ) {
        let plugin = plugin();
        prop_assert_eq!(plugin.array(array), Ok(array));
        prop_assert_eq!(plugin.option(option), Ok(option));
        prop_assert_eq!(plugin.nested(nested), Ok(nested));
        prop_assert_eq!(plugin.side(side), Ok(side));
        prop_assert_eq!(plugin.level(level), Ok(level));
        prop_assert_eq!(plugin.nothing(Nothing), Ok(Nothing));
    }

    #[test]
    fn plain_structs_come_back_as_they_were_beside_bytes_and_in_results(
        level in level(), book in book(), other in book(), bytes: Vec<u8>, is_error: bool,
    ) {
        let plugin = plugin();
        prop_assert_eq!(plugin.book(book), Ok(book));
        prop_assert_eq!(plugin.either(is_error, level), if is_error { Err(Refusal::Unwilling) } else { Ok(level) });
        prop_assert_eq!(plugin.both(book, &bytes, &other), Ok(if bytes.len() % 2 == 0 { book } else { other }));
    }

    #[test]
    fn text_and_bytes_come_back_as_they_were(text: String, bytes: Vec<u8>) {
        let plugin = plugin();
        prop_assert_eq!(plugin.text(&text), Ok(text.clone()));
        prop_assert_eq!(plugin.owned_text(text.clone()), Ok(text));
        prop_assert_eq!(plugin.bytes(&bytes), Ok(bytes.clone()));
        prop_assert_eq!(plugin.owned_bytes(bytes.clone()), Ok(bytes));
    }

    #[test]
    fn arguments_that_are_made_up_are_an_error_or_a_value(
        method in 0..METHODS + 2, made in prop::collection::vec(made(), 0..24), room in 0..24usize,
    ) {
        match dispatched::<dyn Echo>(&Echoes, method, &made, room) {
            Ok(()) => prop_assert!(method < METHODS),
            Err(error) if method < METHODS => prop_assert_eq!(error.kind(), CallErrorKind::Malformed),
            Err(error) => prop_assert_eq!(error.kind(), CallErrorKind::Unsupported),
        }
    }

    #[test]
    fn an_answer_that_is_made_up_is_an_error_or_a_value(
        words in prop::collection::vec(word(), 0..24), bytes: Vec<u8>, level in level(), book in book(),
    ) {
        let plugin = <dyn Echo>::proxy(MadeUp { words, bytes });
        for outcome in call_all(&*plugin, level, book) {
            prop_assert!(matches!(outcome, Ok(()) | Err(CallErrorKind::Malformed)), "{outcome:?}");
        }
    }

    #[test]
    fn words_that_are_a_value_are_that_value_again(words in prop::collection::vec(word(), Book::WORDS)) {
        if let Some(book) = Book::get(&mut words.into_iter()) {
            let mut again = Vec::new();
            book.put(&mut |word| again.push(word));
            prop_assert_eq!(again.len(), Book::WORDS);
            prop_assert_eq!(Book::get(&mut again.into_iter()), Some(book));
        }
    }
}

#[test]
fn one_argument_more_or_less_is_refused() {
    let bytes = GivenArgument::Bytes(b"text".to_vec());
    let is_malformed = |method: u32, made: &[GivenArgument]| {
        dispatched::<dyn Echo>(&Echoes, method, made, 8).map_err(|error| error.kind()) == Err(CallErrorKind::Malformed)
    };
    assert!(is_malformed(0, &[]));
    assert!(!is_malformed(0, &[GivenArgument::Word(7)]));
    assert!(is_malformed(0, &[GivenArgument::Word(7), GivenArgument::Word(7)]));
    assert!(is_malformed(0, &[GivenArgument::Word(256)]), "it is no u8");
    assert!(is_malformed(0, std::slice::from_ref(&bytes)), "bytes are no number");
    assert!(!is_malformed(19, std::slice::from_ref(&bytes)));
    assert!(is_malformed(19, &[GivenArgument::Word(4)]), "a number is no text, and no address");
    assert!(is_malformed(19, &[GivenArgument::Bytes(vec![0xff])]), "it is not UTF-8");
}

#[cfg(feature = "postcard")]
mod by_serde {
    use std::collections::BTreeMap;

    use hotslot_plugin::Schema;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Schema)]
    struct Note {
        subject: String,
        tags: BTreeMap<String, Option<i64>>,
        kind: Kind,
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Schema)]
    enum Kind {
        #[default]
        Empty,
        Text(String),
        Pair {
            left: u128,
            right: Vec<u16>,
        },
    }

    echo! {
        SerdeEcho, SerdeEchoes:
        note: Note;
        notes: Vec<Note>;
        maybe: Option<String>;
        pair: (u32, String);
        words: Vec<u64>;
    }

    fn note() -> impl Strategy<Value = Note> {
        let kind = prop_oneof![
            Just(Kind::Empty),
            any::<String>().prop_map(Kind::Text),
            any::<(u128, Vec<u16>)>().prop_map(|(left, right)| Kind::Pair { left, right }),
        ];
        (any::<String>(), any::<BTreeMap<String, Option<i64>>>(), kind).prop_map(|(subject, tags, kind)| Note {
            subject,
            tags,
            kind,
        })
    }

    proptest! {
        #[test]
        fn values_of_serde_come_back_as_they_were(
            note in note(), notes in prop::collection::vec(note(), 0..4), maybe: Option<String>, pair: (u32, String),
            words: Vec<u64>,
        ) {
            let plugin = harness!(SerdeEchoes as SerdeEcho).start().unwrap();
            prop_assert_eq!(plugin.note(note.clone()), Ok(note));
            prop_assert_eq!(plugin.notes(notes.clone()), Ok(notes));
            prop_assert_eq!(plugin.maybe(maybe.clone()), Ok(maybe));
            prop_assert_eq!(plugin.pair(pair.clone()), Ok(pair));
            prop_assert_eq!(plugin.words(words.clone()), Ok(words));
        }

        #[test]
        fn bytes_that_are_made_up_are_an_error_or_a_value(
            method in 0..9u32, made in prop::collection::vec(made(), 0..3), words in prop::collection::vec(word(), 24),
            bytes: Vec<u8>, level in level(), book in book(),
        ) {
            if let Err(error) = dispatched::<dyn SerdeEcho>(&SerdeEchoes, method, &made, 24) {
                prop_assert_eq!(error.kind(), CallErrorKind::Malformed);
            }
            let plugin = <dyn SerdeEcho>::proxy(MadeUp { words, bytes });
            for outcome in call_all(&*plugin, level, book) {
                prop_assert!(matches!(outcome, Ok(()) | Err(CallErrorKind::Malformed)), "{outcome:?}");
            }
        }
    }
}

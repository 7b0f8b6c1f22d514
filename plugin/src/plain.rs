//! Values that cross as machine words: no allocation, and nothing that could be a pointer.

use crate::contract::Shape;

/// A value that crosses an [interface](macro@crate::interface) as machine words.
///
/// Numbers, `bool`, `char`, arrays of plain values and options of them are; structs of plain fields and enums without
/// fields become so with `#[derive(Plain)]`. What comes from the other side is checked: a number that is no variant of an
/// enum is an error, and never an undefined value.
///
/// ```
/// use hotslot_plugin::Plain;
///
/// #[derive(Clone, Copy, Debug, PartialEq, Plain)]
/// enum Side { Buy = 1, Sell = -1 }
///
/// #[derive(Clone, Copy, Debug, PartialEq, Plain)]
/// struct Order { side: Side, price: f64, quantity: [u32; 2] }
///
/// let order = Order { side: Side::Sell, price: 142.5, quantity: [3, 4] };
/// let mut words = Vec::new();
/// order.put(&mut |word| words.push(word));
/// assert_eq!(words.len(), Order::WORDS);
/// assert_eq!(Order::get(&mut words.into_iter()), Some(order));
/// assert_eq!(Side::get(&mut [0].into_iter()), None);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no plain type",
    label = "not plain",
    note = "numbers, `bool`, `char`, arrays and options of plain types are plain, and what has #[derive(Plain)]",
    note = "a type with text or lists in it crosses by serde instead: derive Serialize and Deserialize for all of it"
)]
pub trait Plain: Sized {
    /// How many words it takes.
    const WORDS: usize;
    /// What it is made of, for the contract.
    #[doc(hidden)]
    const SHAPE: &'static Shape;

    /// Gives its words, [`WORDS`](Plain::WORDS) of them.
    fn put(&self, word: &mut impl FnMut(u64));

    /// Takes it from the front of `words`; `None` if they are no such value.
    fn get(words: &mut impl Iterator<Item = u64>) -> Option<Self>;
}

macro_rules! plain {
    ($($ty:ty as $name:literal: $to:expr, $from:expr;)*) => { $(
        impl Plain for $ty {
            const WORDS: usize = 1;
            const SHAPE: &'static Shape = &Shape::Word($name);

            #[inline]
            fn put(&self, word: &mut impl FnMut(u64)) {
                let to: fn($ty) -> u64 = $to;
                word(to(*self));
            }

            #[inline]
            fn get(words: &mut impl Iterator<Item = u64>) -> Option<Self> {
                let from: fn(u64) -> Option<$ty> = $from;
                from(words.next()?)
            }
        }
    )* };
}

// A negative number is extended with its sign, so that C can assign a word to an integer of any width.
plain! {
    u8 as "u8": u64::from, |word| u8::try_from(word).ok();
    u16 as "u16": u64::from, |word| u16::try_from(word).ok();
    u32 as "u32": u64::from, |word| u32::try_from(word).ok();
    u64 as "u64": u64::from, Some;
    i8 as "i8": |value| i64::from(value) as u64, |word| i8::try_from(word as i64).ok();
    i16 as "i16": |value| i64::from(value) as u64, |word| i16::try_from(word as i64).ok();
    i32 as "i32": |value| i64::from(value) as u64, |word| i32::try_from(word as i64).ok();
    i64 as "i64": |value| value as u64, |word| Some(word as i64);
    f32 as "f32": |value| u64::from(value.to_bits()), |word| u32::try_from(word).ok().map(f32::from_bits);
    f64 as "f64": f64::to_bits, |word| Some(f64::from_bits(word));
    char as "char": |value| u64::from(u32::from(value)), |word| u32::try_from(word).ok().and_then(char::from_u32);
    bool as "bool": u64::from, |word| match word { 0 => Some(false), 1 => Some(true), _ => None };
}

impl<T: Plain, const N: usize> Plain for [T; N] {
    const WORDS: usize = T::WORDS * N;
    const SHAPE: &'static Shape = &Shape::Array(T::SHAPE, N);

    #[inline]
    fn put(&self, word: &mut impl FnMut(u64)) {
        self.iter().for_each(|element| element.put(word));
    }

    #[inline]
    fn get(words: &mut impl Iterator<Item = u64>) -> Option<Self> {
        // Through options, because it must not allocate.
        let elements: [Option<T>; N] = std::array::from_fn(|_| T::get(words));
        if elements.iter().any(Option::is_none) {
            return None;
        }
        Some(elements.map(|element| element.expect("none of them is missing")))
    }
}

/// A word that says whether there is one, then the value or as many zeros.
impl<T: Plain> Plain for Option<T> {
    const WORDS: usize = 1 + T::WORDS;
    const SHAPE: &'static Shape = &Shape::Option(T::SHAPE);

    #[inline]
    fn put(&self, word: &mut impl FnMut(u64)) {
        word(u64::from(self.is_some()));
        match self {
            Some(value) => value.put(word),
            None => (0..T::WORDS).for_each(|_| word(0)),
        }
    }

    #[inline]
    fn get(words: &mut impl Iterator<Item = u64>) -> Option<Self> {
        match words.next()? {
            0 => {
                for _ in 0..T::WORDS {
                    words.next()?;
                }
                Some(None)
            }
            1 => T::get(words).map(Some),
            _ => None,
        }
    }
}

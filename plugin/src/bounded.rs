//! Reads values of serde within bounds: what a few bytes claim to be can be gigabytes, or nested without an end.
//!
//! Postcard writes an empty string as one byte and an empty struct as none, and a sequence says how long it is. So the
//! bytes do not bound the value: here its memory is counted while it is made, and how deep it is nested.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// The memory that a value may take besides what its bytes account for.
const MEMORY: usize = 64 << 20;
/// How much more a value may take than its bytes: most numbers are shorter there.
const GROWTH: usize = 4;
/// What an element counts as at least: one without a size takes time.
const ELEMENT: usize = 16;
/// How deep values may be nested: reading them takes the stack.
const DEPTH: u32 = 128;

/// Reads a value, which takes all of the bytes.
pub(crate) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let left = Cell::new(MEMORY.saturating_add(bytes.len().saturating_mul(GROWTH)));
    let mut postcard = postcard::Deserializer::from_bytes(bytes);
    let value = T::deserialize(Bounded { inner: &mut postcard, bounds: Bounds { left: &left, depth: DEPTH } }).ok()?;
    postcard.finalize().ok()?.is_empty().then_some(value)
}

#[derive(Clone, Copy)]
struct Bounds<'b> {
    left: &'b Cell<usize>,
    depth: u32,
}

impl<'b> Bounds<'b> {
    fn take<E: Error>(self, bytes: usize) -> Result<(), E> {
        self.left.set(self.left.get().checked_sub(bytes).ok_or_else(|| E::custom("the value is too large"))?);
        Ok(())
    }

    fn deeper<E: Error>(self) -> Result<Bounds<'b>, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("the value is nested too deeply"))?;
        Ok(Bounds { depth, ..self })
    }
}

/// Anything of serde's that reads, within bounds.
struct Bounded<'b, T> {
    inner: T,
    bounds: Bounds<'b>,
}

impl<'b, T> Bounded<'b, T> {
    fn with<U>(&self, inner: U) -> Bounded<'b, U> {
        Bounded { inner, bounds: self.bounds }
    }
}

/// What holds no other value: its bytes account for it, and the element that it is was counted.
macro_rules! deserialize_alone {
    ($($method:ident($($argument:ident: $ty:ty),*);)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($argument: $ty,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($argument,)* visitor)
        }
    )*};
}

/// What may hold others.
macro_rules! deserialize {
    ($($method:ident($($argument:ident: $ty:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $ty,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = Bounded { inner: visitor, bounds: self.bounds.deeper()? };
            self.inner.$method($($argument,)* visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    deserialize_alone! {
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_unit();
        deserialize_identifier();
        deserialize_unit_struct(name: &'static str);
    }

    deserialize! {
        deserialize_any();
        deserialize_option();
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_ignored_any();
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident: $ty:ty;)*) => {$(
        fn $method<E: Error>(self, value: $ty) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

macro_rules! visit_sized {
    ($($method:ident: $ty:ty;)*) => {$(
        fn $method<E: Error>(self, value: $ty) -> Result<V::Value, E> {
            self.bounds.take(value.len())?;
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool: bool;
        visit_i8: i8;
        visit_i16: i16;
        visit_i32: i32;
        visit_i64: i64;
        visit_i128: i128;
        visit_u8: u8;
        visit_u16: u16;
        visit_u32: u32;
        visit_u64: u64;
        visit_u128: u128;
        visit_f32: f32;
        visit_f64: f64;
        visit_char: char;
    }

    visit_sized! {
        visit_str: &str;
        visit_borrowed_str: &'de str;
        visit_string: String;
        visit_bytes: &[u8];
        visit_borrowed_bytes: &'de [u8];
        visit_byte_buf: Vec<u8>;
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.with(access);
        self.inner.visit_seq(access)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.with(access);
        self.inner.visit_map(access)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.with(access);
        self.inner.visit_enum(access)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.bounds.take(size_of::<S::Value>().max(ELEMENT))?;
        let deserializer = self.with(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let seed = self.with(seed);
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let seed = self.with(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'b, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<'b, A> {
    type Error = A::Error;
    type Variant = Bounded<'b, A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self::Variant), A::Error> {
        let (bounds, seed) = (self.bounds, self.with(seed));
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Bounded { inner: variant, bounds }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.with(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.with(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};

    use super::from_bytes;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Tree {
        Leaf,
        Node(Box<Tree>),
        Pair(u8, String),
        Named { bytes: Vec<u8>, of: Option<i64> },
    }

    fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
        let bytes = postcard::to_allocvec(&value).unwrap();
        assert_eq!(from_bytes::<T>(&bytes), Some(value));
        assert_eq!(from_bytes::<T>(&[bytes, vec![0]].concat()), None);
    }

    #[test]
    fn what_is_written_can_be_read() {
        same((1_u8, -2_i64, 1.5_f32, 'x', true, i128::MIN));
        same(vec![String::from("one"), String::new()]);
        same(BTreeMap::from([("one".to_owned(), vec![Some(1), None])]));
        let named = || Tree::Named { bytes: vec![0; 100_000], of: Some(-1) };
        same(vec![Tree::Leaf, Tree::Node(Box::new(Tree::Pair(1, "two".to_owned()))), named()]);
        same(vec![vec![7_u64; 1_000]; 1_000]);
    }

    #[test]
    fn what_would_take_more_than_its_bytes_account_for_is_not_read() {
        /// A sequence of that length, with nothing in it but zeros.
        fn zeros(len: u64, bytes: usize) -> Vec<u8> {
            [postcard::to_allocvec(&len).unwrap(), vec![0; bytes]].concat()
        }
        assert_eq!(from_bytes::<Vec<String>>(&zeros(8 << 20, 8 << 20)), None);
        assert_eq!(from_bytes::<Vec<()>>(&zeros(u64::from(u32::MAX), 0)), None);
        assert_eq!(from_bytes::<Vec<[(); 2]>>(&zeros(1 << 40, 0)), None);
        assert_eq!(from_bytes::<Vec<()>>(&zeros(1_000, 0)), Some(vec![(); 1_000]));
    }

    #[test]
    fn what_is_nested_without_an_end_is_not_read() {
        let deep = |depth: usize| [vec![1; depth], vec![0]].concat();
        assert!(from_bytes::<Tree>(&deep(20)).is_some());
        assert_eq!(from_bytes::<Tree>(&deep(1 << 20)), None);
    }
}

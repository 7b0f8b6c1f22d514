//! What a serde type is made of, for the contract: postcard writes neither names nor types, so that bytes alone cannot
//! tell two fields that were swapped.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::{NonZero, Saturating, Wrapping};
use std::ops::{Bound, Range, RangeFrom, RangeInclusive, RangeTo};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

/// Describes what a serde type is made of, so that the contract of an [interface](macro@crate::interface) covers it.
///
/// Every serde type that crosses has to have it: derive it beside `Serialize` and `Deserialize`, for each type down to
/// the innermost. The types of std that serde knows have it, but for atomics, `Reverse`, `CString`, `OsString`, `Weak` and
/// tuples of more than twelve: say for those what they are written as, with `#[schema(as = Type)]`. A host refuses a plugin whose types differ in a field, a
/// variant, a type or their order, and names it.
///
/// ```
/// use hotslot_plugin::Schema;
///
/// #[derive(Schema)] // and Serialize, Deserialize
/// struct Quote {
///     bid: f64,
///     ask: f64,
///     venues: Vec<Venue>,
/// }
///
/// #[derive(Schema)]
/// enum Venue {
///     Exchange(String),
///     Dark { pool: u32 },
/// }
///
/// assert_eq!(
///     hotslot_plugin::schema_text!(Quote),
///     "Quote{bid:f64,ask:f64,venues:Vec<Venue{Exchange=0(String),Dark=1{pool:u32}}>}",
/// );
/// ```
///
/// # Attributes
/// The derive reads serde's attributes. Those that rename are without effect on postcard, and on the description: the
/// names in it are those of the Rust source. A field with `skip` does not cross and is left out. Those that postcard
/// cannot carry (`flatten`, `tag`, `untagged`, `skip_serializing_if`, …) do not compile. Where serde's code is replaced
/// (`with`, `from`, …), and for fields of foreign types, the type has to be told by one of:
/// - `#[schema(as = Type)]` on a field or a type: its bytes are those of `Type`.
/// - `#[schema(name = "uuid/1")]` on a field or a type: its bytes are what this name stands for. Only the name is compared, so it
///   has to change with the format.
///
/// A type may contain itself, directly or within containers. Types that contain each other in a circle do not compile
/// (the compiler reports a cycle) until one field of the circle has a `name`.
#[diagnostic::on_unimplemented(
    message = "the contract cannot say what `{Self}` is made of",
    label = "add #[derive(hotslot_plugin::Schema)] to this type",
    note = "in a field, the type of another crate is described by #[schema(as = Type)], whose bytes are the same, or \
            #[schema(name = \"…\")]; elsewhere, wrap it in a type of your own"
)]
pub trait Schema {
    /// What it is made of.
    #[doc(hidden)]
    const LAYOUT: &'static Layout;
}

/// What a type is made of.
pub enum Layout {
    /// A type that is known by its name.
    Name(&'static str),
    /// A container, by its name and the types in it.
    Generic(&'static str, &'static [&'static Layout]),
    /// So many of the same.
    Array(&'static Layout, usize),
    /// Several of different types.
    Tuple(&'static [&'static Layout]),
    /// A struct.
    Struct(&'static str, Members),
    /// An enum.
    Enum(&'static str, &'static [(&'static str, Members)]),
    /// A type that is described by the author's word alone.
    Told(&'static str),
    /// A type without a description, which does not compile.
    Unknown,
}

/// What is in a struct, or in a variant.
pub enum Members {
    None,
    Unnamed(&'static [&'static Layout]),
    Named(&'static [(&'static str, &'static Layout)]),
}

macro_rules! name {
    ($($ty:ty as $name:literal;)*) => { $(
        impl Schema for $ty {
            const LAYOUT: &'static Layout = &Layout::Name($name);
        }
    )* };
}

name! {
    bool as "bool"; char as "char"; f32 as "f32"; f64 as "f64"; () as "()";
    u8 as "u8"; u16 as "u16"; u32 as "u32"; u64 as "u64"; u128 as "u128"; usize as "usize";
    i8 as "i8"; i16 as "i16"; i32 as "i32"; i64 as "i64"; i128 as "i128"; isize as "isize";
    str as "String"; String as "String"; Path as "PathBuf"; PathBuf as "PathBuf";
    Duration as "Duration"; SystemTime as "SystemTime";
    IpAddr as "IpAddr"; Ipv4Addr as "Ipv4Addr"; Ipv6Addr as "Ipv6Addr";
    SocketAddr as "SocketAddr"; SocketAddrV4 as "SocketAddrV4"; SocketAddrV6 as "SocketAddrV6";
}

macro_rules! non_zero {
    ($($ty:ty)*) => { $(
        impl Schema for NonZero<$ty> {
            const LAYOUT: &'static Layout = &Layout::Generic("NonZero", &[<$ty>::LAYOUT]);
        }
    )* };
}
non_zero!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

/// Types around another one, which leave nothing of themselves in the bytes.
macro_rules! transparent {
    ($($ty:ident)*) => { $(
        impl<T: Schema + ?Sized> Schema for $ty<T> {
            const LAYOUT: &'static Layout = T::LAYOUT;
        }
    )* };
}
transparent!(Box Rc Arc Cell RefCell Mutex RwLock);

impl<T: Schema + ?Sized> Schema for &T {
    const LAYOUT: &'static Layout = T::LAYOUT;
}

impl<T: Schema + ToOwned + ?Sized> Schema for Cow<'_, T> {
    const LAYOUT: &'static Layout = T::LAYOUT;
}

/// Containers, by what they are in the bytes: a sequence is one whatever holds it in memory.
macro_rules! generic {
    ($($ty:ident<$($of:ident),+ $(; $other:ident)?> as $name:literal;)*) => { $(
        impl<$($of: Schema,)+ $($other)?> Schema for $ty<$($of,)+ $($other)?> {
            const LAYOUT: &'static Layout = &Layout::Generic($name, &[$($of::LAYOUT),+]);
        }
    )* };
}

generic! {
    Option<T> as "Option"; Result<T, E> as "Result"; Bound<T> as "Bound";
    Vec<T> as "Vec"; VecDeque<T> as "Vec"; LinkedList<T> as "Vec";
    BTreeSet<T> as "Set"; HashSet<T; S> as "Set"; BinaryHeap<T> as "Heap";
    BTreeMap<K, V> as "Map"; HashMap<K, V; S> as "Map";
    Range<T> as "Range"; RangeFrom<T> as "RangeFrom"; RangeInclusive<T> as "RangeInclusive"; RangeTo<T> as "RangeTo";
    Wrapping<T> as "Wrapping"; Saturating<T> as "Saturating";
}

impl<T: Schema> Schema for [T] {
    const LAYOUT: &'static Layout = &Layout::Generic("Vec", &[T::LAYOUT]);
}

impl<T: Schema, const N: usize> Schema for [T; N] {
    const LAYOUT: &'static Layout = &Layout::Array(T::LAYOUT, N);
}

impl<T: ?Sized> Schema for PhantomData<T> {
    const LAYOUT: &'static Layout = &Layout::Name("()");
}

macro_rules! tuple {
    ($($ty:ident)+) => {
        impl<$($ty: Schema),+> Schema for ($($ty,)+) {
            const LAYOUT: &'static Layout = &Layout::Tuple(&[$($ty::LAYOUT),+]);
        }
    };
}

tuple!(A);
tuple!(A B);
tuple!(A B C);
tuple!(A B C D);
tuple!(A B C D E);
tuple!(A B C D E F);
tuple!(A B C D E F G);
tuple!(A B C D E F G H);
tuple!(A B C D E F G H I);
tuple!(A B C D E F G H I J);
tuple!(A B C D E F G H I J K);
tuple!(A B C D E F G H I J K L);

//! State as a plain C struct that crosses from one version of a plugin to the next.

/// A field of a [`plain_state!`](crate::plain_state) struct: a number, or an array of numbers.
pub trait Field: Copy + 'static {
    /// How many bytes it takes.
    const SIZE: usize;
    /// Appends its bytes, in the machine's byte order.
    fn write(self, bytes: &mut Vec<u8>);
    /// Reads it from exactly [`SIZE`](Field::SIZE) bytes.
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! field {
    ($($number:ty)*) => { $(
        impl Field for $number {
            const SIZE: usize = size_of::<$number>();
            fn write(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_ne_bytes());
            }
            fn read(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<$number>()];
                own.copy_from_slice(bytes);
                <$number>::from_ne_bytes(own)
            }
        }
    )* };
}
field!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64);

impl<T: Field, const N: usize> Field for [T; N] {
    const SIZE: usize = T::SIZE * N;
    fn write(self, bytes: &mut Vec<u8>) {
        self.into_iter().for_each(|element| element.write(bytes));
    }
    fn read(bytes: &[u8]) -> Self {
        std::array::from_fn(|at| T::read(&bytes[at * T::SIZE..(at + 1) * T::SIZE]))
    }
}

/// The bytes are not a state of this layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongSize {
    /// How many bytes the struct has.
    pub expected: usize,
    /// How many came.
    pub found: usize,
}

impl std::fmt::Display for WrongSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the state has {} bytes where its schema has {}: change the schema id when you change the struct",
            self.found, self.expected
        )
    }
}

impl std::error::Error for WrongSize {}

/// Declares a `#[repr(C)]` struct of numbers with `to_bytes` and `from_bytes`: the same bytes that C would see.
///
/// Give the layout a schema id of its own, and a new one whenever a field changes.
///
/// ```
/// hotslot_plugin::plain_state! {
///     /// An exponential moving average over the ticks so far.
///     #[derive(PartialEq)]
///     pub struct Indicator {
///         /// The average.
///         pub ema: f64,
///         /// How many ticks went into it.
///         pub ticks: u64,
///     }
/// }
///
/// let before = Indicator { ema: 142.5, ticks: 7 };
/// let after = Indicator::from_bytes(&before.to_bytes())?;
/// assert_eq!(before, after);
/// assert!(Indicator::from_bytes(&[0; 3]).is_err());
/// # Ok::<(), hotslot_plugin::state::WrongSize>(())
/// ```
///
/// A struct with padding does not compile, so that no byte is undefined:
///
/// ```compile_fail
/// hotslot_plugin::plain_state! {
///     struct Gap { flag: u8, ticks: u64 }
/// }
/// ```
///
/// Name the gap as a field:
///
/// ```
/// hotslot_plugin::plain_state! {
///     struct NoGap { flag: u8, unused: [u8; 7], ticks: u64 }
/// }
/// ```
#[macro_export]
macro_rules! plain_state {
    (
        $(#[$outer:meta])*
        $visibility:vis struct $name:ident {
            $( $(#[$inner:meta])* $field_visibility:vis $field:ident: $kind:ty ),+ $(,)?
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        $visibility struct $name {
            $( $(#[$inner])* $field_visibility $field: $kind, )+
        }

        impl $name {
            /// How many bytes the struct has.
            $visibility const SIZE: usize = 0 $(+ <$kind as $crate::state::Field>::SIZE)+;

            /// The struct's bytes.
            $visibility fn to_bytes(&self) -> Vec<u8> {
                let mut bytes = Vec::with_capacity(Self::SIZE);
                $( $crate::state::Field::write(self.$field, &mut bytes); )+
                bytes
            }

            /// The struct from its bytes.
            $visibility fn from_bytes(bytes: &[u8]) -> Result<Self, $crate::state::WrongSize> {
                if bytes.len() != Self::SIZE {
                    return Err($crate::state::WrongSize { expected: Self::SIZE, found: bytes.len() });
                }
                let mut rest = bytes;
                $(
                    let (own, after) = rest.split_at(<$kind as $crate::state::Field>::SIZE);
                    let $field = <$kind as $crate::state::Field>::read(own);
                    rest = after;
                )+
                let _ = rest;
                Ok(Self { $($field),+ })
            }
        }

        const _: () = assert!(
            ::std::mem::size_of::<$name>() == $name::SIZE,
            "this struct has padding: name the gap as a field, so that every byte is defined"
        );
    };
}

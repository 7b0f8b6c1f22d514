//! An interface as text, made at compile time: what a plugin carries in a section that can be read without running it.
//!
//! The first line is `interface NAME MAJOR.MINOR`; then each method has a line, `method NAME(TYPES)->TYPE`, or
//! `since MAJOR.MINOR NAME(TYPES)->TYPE`, in the order of their numbers. A type of the user's is followed by what it is
//! made of; one that crosses by serde is `postcard:` and its [`Layout`].

use crate::schema::{Layout, Members};

/// The longest contract that a host reads, in bytes.
pub const LIMIT: usize = 64 << 10;

/// A piece of a contract.
pub enum Part {
    /// Itself.
    Text(&'static str),
    /// A type of the user's: its spelling, what it is made of if it is plain, and what it is made of by serde.
    Type { spelled: &'static str, plain: Option<&'static Shape>, by_serde: &'static Layout },
    /// What a type of serde is made of.
    Layout(&'static Layout),
}

/// What a plain type is made of.
pub enum Shape {
    /// One word, of this type.
    Word(&'static str),
    /// So many of the same.
    Array(&'static Shape, usize),
    /// One, or none.
    Option(&'static Shape),
    /// A struct.
    Fields(&'static [Field]),
    /// An enum without fields.
    Variants(&'static [Variant]),
}

/// A field of a struct.
pub struct Field {
    pub name: &'static str,
    /// The type as it is written.
    pub ty: &'static str,
    pub shape: &'static Shape,
}

/// A variant of an enum.
pub struct Variant {
    pub name: &'static str,
    pub value: i64,
}

/// The text of these parts.
#[doc(hidden)]
#[macro_export]
macro_rules! __text {
    ($parts:expr) => {{
        const PARTS: &[$crate::__private::contract::Part] = $parts;
        const LENGTH: usize = $crate::__private::contract::write_all(PARTS, &mut []);
        const BYTES: [u8; LENGTH] = {
            let mut bytes = [0; LENGTH];
            $crate::__private::contract::write_all(PARTS, &mut bytes);
            bytes
        };
        match ::core::str::from_utf8(&BYTES) {
            Ok(text) => text,
            Err(_) => panic!("parts are text, and so is the whole"),
        }
    }};
}

/// What identifies an interface.
#[doc(hidden)]
#[macro_export]
macro_rules! __id {
    ($name:expr, $major:expr, $minor:expr, $required:expr) => {{
        use $crate::__private::contract;
        const REQUIRED: &str = contract::text!($required);
        const HASH: [u8; 16] = contract::hash(REQUIRED.as_bytes());
        const HEX: &str = match ::core::str::from_utf8(&HASH) {
            Ok(text) => text,
            Err(_) => panic!("hexadecimal digits are text"),
        };
        const VERSION: &str = concat!("/", $major, ".", $minor, "#");
        contract::text!(&[contract::Part::Text($name), contract::Part::Text(VERSION), contract::Part::Text(HEX)])
    }};
}

/// Returns the description of a type as the text that contracts contain.
#[macro_export]
macro_rules! schema_text {
    ($ty:ty) => {
        $crate::__private::contract::text!(&[$crate::__private::contract::Part::Layout(
            <$ty as $crate::Schema>::LAYOUT
        )])
    };
}

/// Returns a schema id for a state of this type, made of its description: `name#hash`.
///
/// As a plugin's [`SCHEMA`](crate::Plugin::SCHEMA) it changes whenever the type changes, so that no state is read as that
/// of another type. The name has to be short: an id has at most 95 bytes, of which the hash takes 17.
///
/// ```
/// # use hotslot_plugin::{Schema, schema_id};
/// #[derive(Schema)]
/// struct Counts { hits: u64, misses: u64 }
///
/// const SCHEMA: &str = schema_id!("counts", Counts);
/// assert!(SCHEMA.starts_with("counts#"));
/// ```
#[macro_export]
macro_rules! schema_id {
    ($name:expr, $ty:ty) => {{
        use $crate::__private::contract;
        const TEXT: &str = $crate::schema_text!($ty);
        const HASH: [u8; 16] = contract::hash(TEXT.as_bytes());
        const HEX: &str = match ::core::str::from_utf8(&HASH) {
            Ok(text) => text,
            Err(_) => panic!("hexadecimal digits are text"),
        };
        contract::text!(&[contract::Part::Text($name), contract::Part::Text("#"), contract::Part::Text(HEX)])
    }};
}

pub use __id as id;
pub use __text as text;

/// Writes the parts and gives their length; what does not fit is only counted.
pub const fn write_all(parts: &[Part], out: &mut [u8]) -> usize {
    let (mut at, mut part) = (0, 0);
    while part < parts.len() {
        at = match &parts[part] {
            Part::Text(text) => write(text, at, out),
            Part::Type { spelled, plain: Some(shape), .. } => write_shape(shape, write(spelled, at, out), out),
            Part::Type { plain: None, by_serde, .. } => write_layout(by_serde, write("postcard:", at, out), out),
            Part::Layout(layout) => write_layout(layout, at, out),
        };
        part += 1;
    }
    at
}

const fn write(text: &str, at: usize, out: &mut [u8]) -> usize {
    let bytes = text.as_bytes();
    // At once, and not byte by byte: the compiler complains of constants that take many steps.
    if at + bytes.len() <= out.len() {
        out.split_at_mut(at).1.split_at_mut(bytes.len()).0.copy_from_slice(bytes);
    }
    at + bytes.len()
}

const fn write_shape(shape: &Shape, mut at: usize, out: &mut [u8]) -> usize {
    match shape {
        Shape::Word(name) => {
            at = write(":", at, out);
            write(name, at, out)
        }
        Shape::Option(inner) => {
            at = write("?", at, out);
            write_shape(inner, at, out)
        }
        Shape::Array(inner, count) => {
            at = write("*", at, out);
            at = write_number(*count as i64, at, out);
            write_shape(inner, at, out)
        }
        Shape::Fields(fields) => {
            at = write("{", at, out);
            let mut field = 0;
            while field < fields.len() {
                let Field { name, ty, shape } = &fields[field];
                at = write(if field > 0 { "," } else { "" }, at, out);
                at = write(name, at, out);
                at = write(":", at, out);
                at = write(ty, at, out);
                // The spelling of a number says all, unless it is another name for it.
                at = match shape {
                    Shape::Word(word) if same(word, ty) => at,
                    shape => write_shape(shape, at, out),
                };
                field += 1;
            }
            write("}", at, out)
        }
        Shape::Variants(variants) => {
            at = write("{", at, out);
            let mut variant = 0;
            while variant < variants.len() {
                at = write(if variant > 0 { "," } else { "" }, at, out);
                at = write(variants[variant].name, at, out);
                at = write("=", at, out);
                at = write_number(variants[variant].value, at, out);
                variant += 1;
            }
            write("}", at, out)
        }
    }
}

const fn write_layout(layout: &Layout, mut at: usize, out: &mut [u8]) -> usize {
    match layout {
        Layout::Name(name) => write(name, at, out),
        Layout::Generic(name, of) => {
            at = write("<", write(name, at, out), out);
            write(">", write_list(of, at, out), out)
        }
        Layout::Array(of, count) => {
            at = write(";", write_layout(of, write("[", at, out), out), out);
            write("]", write_number(*count as i64, at, out), out)
        }
        Layout::Tuple(of) => {
            // A tuple of one has a comma, as in Rust: it is no mere pair of brackets.
            at = write_list(of, write("(", at, out), out);
            write(if of.len() == 1 { ",)" } else { ")" }, at, out)
        }
        Layout::Struct(name, members) => {
            at = write(name, at, out);
            match members {
                Members::None => write("{}", at, out),
                members => write_members(members, at, out),
            }
        }
        Layout::Enum(name, variants) => {
            at = write("{", write(name, at, out), out);
            let mut variant = 0;
            while variant < variants.len() {
                let (name, members) = &variants[variant];
                at = write(if variant > 0 { "," } else { "" }, at, out);
                at = write("=", write(name, at, out), out);
                at = write_members(members, write_number(variant as i64, at, out), out);
                variant += 1;
            }
            write("}", at, out)
        }
        Layout::Told(name) => {
            at = write("\"", at, out);
            write("\"", write(name, at, out), out)
        }
        Layout::Unknown => write("?", at, out),
    }
}

const fn write_members(members: &Members, mut at: usize, out: &mut [u8]) -> usize {
    match members {
        Members::None => at,
        Members::Unnamed(of) => {
            at = write_list(of, write("(", at, out), out);
            write(")", at, out)
        }
        Members::Named(fields) => {
            at = write("{", at, out);
            let mut field = 0;
            while field < fields.len() {
                let (name, layout) = &fields[field];
                at = write(if field > 0 { "," } else { "" }, at, out);
                at = write(":", write(name, at, out), out);
                at = write_layout(layout, at, out);
                field += 1;
            }
            write("}", at, out)
        }
    }
}

const fn write_list(of: &[&Layout], mut at: usize, out: &mut [u8]) -> usize {
    let mut item = 0;
    while item < of.len() {
        at = write(if item > 0 { "," } else { "" }, at, out);
        at = write_layout(of[item], at, out);
        item += 1;
    }
    at
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

const fn write_number(number: i64, at: usize, out: &mut [u8]) -> usize {
    let mut digits = [0; 20];
    let mut first = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let at = write(if number < 0 { "-" } else { "" }, at, out);
    let (_, digits) = digits.split_at(first);
    match std::str::from_utf8(digits) {
        Ok(text) => write(text, at, out),
        Err(_) => at,
    }
}

/// Returns the bytes of a text, as many as it has.
pub const fn bytes<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    write(text, 0, &mut bytes);
    bytes
}

/// Hashes with FNV-1a in 64 bits, and returns hexadecimal digits. It tells contracts apart that differ by accident; it protects from nobody.
pub const fn hash(bytes: &[u8]) -> [u8; 16] {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    let mut digits = [0; 16];
    let mut digit = 0;
    while digit < 16 {
        digits[digit] = b"0123456789abcdef"[(hash >> (60 - 4 * digit)) as usize & 15];
        digit += 1;
    }
    digits
}

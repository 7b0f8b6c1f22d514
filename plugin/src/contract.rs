//! An interface as text, made at compile time: what a plugin carries in a section that can be read without running it.
//!
//! The first line is `interface NAME MAJOR.MINOR`; then each method has a line, `method NAME(TYPES)->TYPE`, or
//! `since MAJOR.MINOR NAME(TYPES)->TYPE`, in the order of their numbers. A type of the user's is followed by what it is
//! made of.

/// A piece of a contract.
pub enum Part {
    /// Itself.
    Text(&'static str),
    /// What a type is made of.
    Shape(&'static Shape),
}

/// What a type is made of.
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
    /// Whatever serde makes of it.
    Postcard,
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

pub use __id as id;
pub use __text as text;

/// Writes the parts and gives their length; what does not fit is only counted.
pub const fn write_all(parts: &[Part], out: &mut [u8]) -> usize {
    let (mut at, mut part) = (0, 0);
    while part < parts.len() {
        at = match &parts[part] {
            Part::Text(text) => write(text, out, at),
            Part::Shape(shape) => write_shape(shape, out, at),
        };
        part += 1;
    }
    at
}

const fn write(text: &str, out: &mut [u8], at: usize) -> usize {
    let bytes = text.as_bytes();
    let mut byte = 0;
    while byte < bytes.len() {
        if at + byte < out.len() {
            out[at + byte] = bytes[byte];
        }
        byte += 1;
    }
    at + bytes.len()
}

const fn write_shape(shape: &Shape, out: &mut [u8], mut at: usize) -> usize {
    match shape {
        Shape::Word(name) => {
            at = write(":", out, at);
            write(name, out, at)
        }
        Shape::Postcard => write(":postcard", out, at),
        Shape::Option(inner) => {
            at = write("?", out, at);
            write_shape(inner, out, at)
        }
        Shape::Array(inner, count) => {
            at = write("*", out, at);
            at = write_number(*count as i64, out, at);
            write_shape(inner, out, at)
        }
        Shape::Fields(fields) => {
            at = write("{", out, at);
            let mut field = 0;
            while field < fields.len() {
                let Field { name, ty, shape } = &fields[field];
                at = write(if field > 0 { "," } else { "" }, out, at);
                at = write(name, out, at);
                at = write(":", out, at);
                at = write(ty, out, at);
                // The spelling of a number says all, unless it is another name for it.
                at = match shape {
                    Shape::Word(word) if same(word, ty) => at,
                    shape => write_shape(shape, out, at),
                };
                field += 1;
            }
            write("}", out, at)
        }
        Shape::Variants(variants) => {
            at = write("{", out, at);
            let mut variant = 0;
            while variant < variants.len() {
                at = write(if variant > 0 { "," } else { "" }, out, at);
                at = write(variants[variant].name, out, at);
                at = write("=", out, at);
                at = write_number(variants[variant].value, out, at);
                variant += 1;
            }
            write("}", out, at)
        }
    }
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

const fn write_number(number: i64, out: &mut [u8], at: usize) -> usize {
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
    let at = write(if number < 0 { "-" } else { "" }, out, at);
    let (_, digits) = digits.split_at(first);
    match std::str::from_utf8(digits) {
        Ok(text) => write(text, out, at),
        Err(_) => at,
    }
}

/// Returns the bytes of a text, as many as it has.
pub const fn bytes<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    write(text, &mut bytes, 0);
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

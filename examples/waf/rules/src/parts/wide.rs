//! Texts in UTF-16 and UTF-32, with a mark of the order of their bytes or without.

/// How many bytes a unit has, and whether the first one is the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Units {
    size: usize,
    little: bool,
}

const WIDE: [Units; 4] = [
    Units { size: 2, little: true },
    Units { size: 2, little: false },
    Units { size: 4, little: true },
    Units { size: 4, little: false },
];

impl Units {
    /// A unit's number. There may be less of the last one.
    fn read(self, bytes: &[u8]) -> u32 {
        let add = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
        if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) }
    }
}

/// The text that a body is, if it begins as one in such units does: with a mark, or with what begins JSON or markup.
pub(super) fn text(body: &[u8]) -> Option<String> {
    let units = announced(body).or_else(|| WIDE.into_iter().find(|units| begins(body, *units)))?;
    let numbers = body.chunks(units.size).map(|unit| units.read(unit));
    let mut text: String = match units.size {
        2 => char::decode_utf16(numbers.map(|number| number as u16))
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect(),
        _ => numbers.map(|number| char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER)).collect(),
    };
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Some(text)
}

fn announced(body: &[u8]) -> Option<Units> {
    // The longer ones first: one mark begins as another one.
    WIDE.into_iter().rev().find(|units| {
        let mark = body.get(..units.size).map(|unit| units.read(unit));
        mark == Some(0xfeff)
    })
}

fn begins(body: &[u8], units: Units) -> bool {
    let mut unit = body.chunks_exact(units.size).map(|unit| char::from_u32(units.read(unit)));
    let (Some(Some(first)), Some(Some(second))) = (unit.next(), unit.next()) else { return false };
    let opens = matches!(first, '{' | '[' | '"' | '<') || first.is_ascii_whitespace();
    opens && second != '\0' && (second.is_ascii() || first == '"')
}

#[cfg(test)]
#[test]
fn texts_are_found_in_every_order_and_binaries_are_none() {
    let text16 = |text: &str, little: bool| -> Vec<u8> {
        text.encode_utf16().flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
    };
    let text32 = |text: &str, little: bool| -> Vec<u8> {
        let bytes = |c: char| if little { u32::from(c).to_le_bytes() } else { u32::from(c).to_be_bytes() };
        text.chars().flat_map(bytes).collect()
    };
    for plain in ["{\"a\": \"é😀\"}", "[1]", "\"é\"", "<a>", " \n[1]"] {
        for little in [true, false] {
            for wide in [text16(plain, little), text32(plain, little)] {
                assert_eq!(text(&wide).as_deref(), Some(plain), "{wide:?}");
            }
            let marked = format!("\u{feff}{plain}");
            for wide in [text16(&marked, little), text32(&marked, little)] {
                assert_eq!(text(&wide).as_deref(), Some(plain), "{wide:?}");
            }
        }
    }
    assert_eq!(text(&text16("\u{feff}a=1", true)).as_deref(), Some("a=1"));
    assert_eq!(text(b"{\0\"\0a").as_deref(), Some("{\"a"));
    assert_eq!(text(b"\xff\xfe\x00\xd8b\0").as_deref(), Some("\u{fffd}b"));
    for other in [
        &b""[..],
        b"{",
        b"{\0",
        b"{\"a\":1}",
        b"\0\0\0\0",
        b"\n\0\x12\x05hello",
        b"\0\0\0\x18ftypmp42\0\0\0\0",
        b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    ] {
        assert_eq!(text(other), None, "{other:?}");
    }
}

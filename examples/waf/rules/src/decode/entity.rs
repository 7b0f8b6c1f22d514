//! HTML entities, as a browser reads them: by number, or by a name; the semicolon is optional.

use std::borrow::Cow;

use crate::cut;

/// The names that stand for a character with a meaning in SQL, scripts, markup or shells. Browsers tell `Tab` from `tab`;
/// careless filters do not.
const NAMES: [(&str, char); 36] = [
    ("amp", '&'),
    ("apos", '\''),
    ("ast", '*'),
    ("bsol", '\\'),
    ("colon", ':'),
    ("comma", ','),
    ("commat", '@'),
    ("dollar", '$'),
    ("equals", '='),
    ("excl", '!'),
    ("grave", '`'),
    ("gt", '>'),
    ("hat", '^'),
    ("lbrace", '{'),
    ("lbrack", '['),
    ("lcub", '{'),
    ("lowbar", '_'),
    ("lpar", '('),
    ("lsqb", '['),
    ("lt", '<'),
    ("nbsp", ' '),
    ("newline", '\n'),
    ("num", '#'),
    ("percnt", '%'),
    ("period", '.'),
    ("plus", '+'),
    ("quest", '?'),
    ("quot", '"'),
    ("rbrace", '}'),
    ("rbrack", ']'),
    ("rcub", '}'),
    ("rpar", ')'),
    ("semi", ';'),
    ("sol", '/'),
    ("tab", '\t'),
    ("vert", '|'),
];

/// These may go without their semicolon.
const BARE: [&str; 4] = ["amp", "gt", "lt", "quot"];

/// Longer than any name in the list, and than any number that is a character, with zeros in front.
const LONGEST: usize = 16;

/// Decodes entities; one that is not known stays as it is.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut pieces = text.split('&');
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        match number(piece).or_else(|| name(piece)) {
            Some((c, length)) => {
                out.push(c);
                out.push_str(cut::from(piece, length));
            }
            None => {
                out.push('&');
                out.push_str(piece);
            }
        }
    }
    Cow::Owned(out)
}

fn number(piece: &str) -> Option<(char, usize)> {
    let digits = piece.strip_prefix('#')?;
    let (digits, radix, prefix) = match digits.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16, 2),
        None => (digits, 10, 1),
    };
    let length = digits.bytes().take(LONGEST).take_while(|byte| char::from(*byte).is_digit(radix)).count();
    let (digits, behind) = digits.split_at_checked(length)?;
    let c = char::from_u32(u32::from_str_radix(digits, radix).ok()?)?;
    Some((c, prefix + length + usize::from(behind.starts_with(';'))))
}

fn name(piece: &str) -> Option<(char, usize)> {
    let length = piece.bytes().take(LONGEST).take_while(u8::is_ascii_alphabetic).count();
    let (name, behind) = piece.split_at_checked(length)?;
    let name = name.to_ascii_lowercase();
    if behind.starts_with(';') {
        let at = NAMES.binary_search_by(|(known, _)| (*known).cmp(&name)).ok()?;
        return NAMES.get(at).map(|(_, c)| (*c, length + 1));
    }
    let bare = BARE.iter().find(|bare| **bare == name)?;
    NAMES.iter().find(|(known, _)| known == bare).map(|(_, c)| (*c, length))
}

#[cfg(test)]
#[test]
fn names_are_sorted() {
    assert!(NAMES.is_sorted());
}

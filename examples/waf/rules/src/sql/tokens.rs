//! Splits text into the tokens of SQL, in the dialects' union.

use crate::cut;

/// A name in brackets, as SQL Server has it, is not longer.
const LONGEST_BRACKETED: usize = 64;

/// Where in a statement the value could have landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Context {
    /// Outside of quotes.
    Bare,
    /// Inside of `'`.
    Single,
    /// Inside of `"`.
    Double,
    /// Inside of a backtick.
    Backtick,
}

impl Context {
    fn quote(self) -> Option<u8> {
        match self {
            Context::Bare => None,
            Context::Single => Some(b'\''),
            Context::Double => Some(b'"'),
            Context::Backtick => Some(b'`'),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A keyword or a name.
    Word,
    Number,
    /// A quoted string that ends.
    Text,
    /// A quoted string that does not end: the statement goes on behind the value.
    Open,
    /// `= < > <= >= <> != <=> ~` and the like.
    Compare,
    /// `&& ||`; words like AND are words.
    Logic,
    /// `+ - * / % ^ | & !`.
    Arithmetic,
    /// `-> ->> #> @> <@ ?|` and the like.
    Json,
    /// `::`.
    Cast,
    /// `@name`, `@@name`.
    Variable,
    Left,
    Right,
    Comma,
    Semicolon,
    Dot,
    /// A comment to the end of the line, or one that is never closed.
    Comment,
    Other,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    /// The token in lower case.
    pub(crate) text: &'a str,
    pub(crate) start: usize,
}

impl Token<'_> {
    pub(crate) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    pub(crate) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text == word
    }
}

/// The tokens of a value that landed in this context. Closed comments are dropped: they are space.
pub(crate) fn tokens(lower: &str, context: Context) -> Vec<Token<'_>> {
    let bytes = lower.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    if let Some(quote) = context.quote() {
        let end = bytes.iter().position(|byte| *byte == quote).map_or(bytes.len(), |end| end + 1);
        out.push(Token { kind: Kind::Text, text: cut::until(lower, end), start: 0 });
        at = end;
    }
    while at < bytes.len() {
        let (kind, end) = next(lower, at, out.last());
        if let Some(kind) = kind {
            out.push(Token { kind, text: cut::between(lower, at, end), start: at });
        }
        at = end;
    }
    out
}

/// The kind of the token that starts here, and its end. White space and closed comments have no kind.
fn next(lower: &str, at: usize, before: Option<&Token<'_>>) -> (Option<Kind>, usize) {
    let bytes = cut::from(lower, at).as_bytes();
    let run = |fits: fn(u8) -> bool| at + bytes.iter().take_while(|byte| fits(**byte)).count();
    let two = bytes.get(..2).unwrap_or_default();
    let three = bytes.get(..3).unwrap_or_default();
    let Some(&first) = bytes.first() else { return (None, lower.len()) };
    match first {
        byte if byte.is_ascii_whitespace() || byte == 0x0b => (None, run(|b| b.is_ascii_whitespace() || b == 0x0b)),
        b'0'..=b'9' => (Some(Kind::Number), at + number(bytes)),
        b'.' if bytes.get(1).is_some_and(u8::is_ascii_digit) && before.is_none_or(|token| token.end() != at) => {
            (Some(Kind::Number), at + number(bytes))
        }
        byte if is_name(byte) => (Some(Kind::Word), run(is_name)),
        quote @ (b'\'' | b'"' | b'`') => string(bytes, quote, at),
        b'[' if bytes.get(1).is_some_and(|byte| is_name(*byte)) => {
            match bytes.iter().take(LONGEST_BRACKETED).position(|byte| *byte == b']') {
                Some(end) => (Some(Kind::Word), at + end + 1),
                None => (Some(Kind::Other), at + 1),
            }
        }
        b'@' if bytes.get(1).is_some_and(|byte| *byte == b'@' || is_name(*byte)) => {
            let name = bytes.iter().skip(1).take_while(|byte| **byte == b'@' || is_name(**byte)).count();
            (Some(Kind::Variable), at + 1 + name)
        }
        b'@' if two == b"@>" || two == b"@?" || two == b"@@" => (Some(Kind::Json), at + 2),
        b'/' if two == b"/*" => match find(bytes.get(2..).unwrap_or_default(), b"*/") {
            Some(end) => (None, at + end + 4),
            None => (Some(Kind::Comment), lower.len()),
        },
        b'*' if two == b"*/" => (None, at + 2),
        b'-' if two == b"->" => (Some(Kind::Json), at + if three == b"->>" { 3 } else { 2 }),
        b'#' if two == b"#>" => (Some(Kind::Json), at + if three == b"#>>" { 3 } else { 2 }),
        b'<' if two == b"<@" => (Some(Kind::Json), at + 2),
        b'?' if two == b"?|" || two == b"?&" => (Some(Kind::Json), at + 2),
        b'?' => (Some(Kind::Json), at + 1),
        b'-' if two == b"--" => (Some(Kind::Comment), end_of_line(bytes, at)),
        b'#' => (Some(Kind::Comment), end_of_line(bytes, at)),
        b':' if two == b"::" => (Some(Kind::Cast), at + 2),
        b'&' if two == b"&&" => (Some(Kind::Logic), at + 2),
        b'|' if two == b"||" => (Some(Kind::Logic), at + 2),
        b'=' | b'<' | b'>' | b'~' => (Some(Kind::Compare), run(|b| matches!(b, b'=' | b'<' | b'>' | b'~' | b'!'))),
        b'!' if matches!(bytes.get(1), Some(b'=' | b'<' | b'>' | b'~')) => (Some(Kind::Compare), at + 2),
        b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'|' | b'&' | b'!' => (Some(Kind::Arithmetic), at + 1),
        b'(' => (Some(Kind::Left), at + 1),
        b')' => (Some(Kind::Right), at + 1),
        b',' => (Some(Kind::Comma), at + 1),
        b';' => (Some(Kind::Semicolon), at + 1),
        b'.' => (Some(Kind::Dot), at + 1),
        _ => (Some(Kind::Other), at + 1),
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// The length of a number; `0x…` too, and an exponent, which MySQL lets be empty.
fn number(bytes: &[u8]) -> usize {
    let run = |from: usize, fits: fn(&u8) -> bool| from + bytes.iter().skip(from).take_while(|byte| fits(byte)).count();
    if bytes.starts_with(b"0x") || bytes.starts_with(b"0b") {
        return run(2, u8::is_ascii_hexdigit);
    }
    let mut end = run(0, u8::is_ascii_digit);
    if bytes.get(end) == Some(&b'.') {
        end = run(end + 1, u8::is_ascii_digit);
    }
    if bytes.get(end) == Some(&b'e') && !bytes.get(end + 1).is_some_and(u8::is_ascii_alphabetic) {
        end += 1;
        if matches!(bytes.get(end), Some(b'+' | b'-')) && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            end += 1;
        }
        end = run(end, u8::is_ascii_digit);
    }
    end
}

fn string(bytes: &[u8], quote: u8, at: usize) -> (Option<Kind>, usize) {
    let mut end = 1;
    while let Some(byte) = bytes.get(end) {
        let escaped = *byte == b'\\' && quote != b'`';
        let doubled = *byte == quote && bytes.get(end + 1) == Some(&quote);
        if escaped || doubled {
            end += 2;
        } else if *byte == quote {
            return (Some(Kind::Text), at + end + 1);
        } else {
            end += 1;
        }
    }
    (Some(Kind::Open), at + bytes.len())
}

fn end_of_line(bytes: &[u8], at: usize) -> usize {
    at + bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len())
}

fn find(bytes: &[u8], wanted: &[u8; 2]) -> Option<usize> {
    bytes.windows(2).position(|window| window == wanted)
}

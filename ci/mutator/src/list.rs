//! The mutants, as cargo-mutants lists them.

use serde::Deserialize;

#[derive(Deserialize)]
pub struct Mutant {
    pub file: String,
    pub name: String,
    pub genre: Genre,
    pub replacement: String,
    span: Extent,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
pub enum Genre {
    FnValue,
    BinaryOperator,
    UnaryOperator,
    MatchArm,
    MatchArmGuard,
    StructField,
}

#[derive(Deserialize)]
struct Extent {
    start: Place,
    end: Place,
}

/// Both count from one.
#[derive(Deserialize)]
struct Place {
    line: usize,
    column: usize,
}

impl Mutant {
    /// Where it begins, in bytes.
    pub fn offset(&self, source: &str) -> usize {
        self.span.start.offset(source)
    }

    /// The source with this mutant alone.
    pub fn applied_to(&self, source: &str) -> String {
        let (start, end) = (self.span.start.offset(source), self.span.end.offset(source));
        format!("{}{}{}", &source[..start], self.replacement, &source[end..])
    }
}

impl Place {
    fn offset(&self, source: &str) -> usize {
        let line: usize = source.split_inclusive('\n').take(self.line - 1).map(str::len).sum();
        let column: usize = source[line..].chars().take(self.column - 1).map(char::len_utf8).sum();
        line + column
    }
}

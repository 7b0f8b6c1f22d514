//! Signatures of functions, in one spelling for what a module says, what the host offers and what a user asks for.

use std::collections::HashMap;
use std::fmt;

/// How a function is called: `(i32, i32) -> i64`.
///
/// It is compared by its spelling, which is that of the text format's types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature(String);

impl Signature {
    /// As a user wrote it; spaces mean nothing.
    pub(super) fn parse(text: &str) -> Signature {
        Signature(text.split_whitespace().collect())
    }

    pub(super) fn of(
        params: impl IntoIterator<Item = impl fmt::Display>,
        results: impl IntoIterator<Item = impl fmt::Display>,
    ) -> Signature {
        let list = |types: Vec<String>| types.join(",");
        let params = list(params.into_iter().map(|param| param.to_string()).collect());
        let results: Vec<_> = results.into_iter().map(|result| result.to_string()).collect();
        let results = match &results[..] {
            [] => String::new(),
            [one] => format!("->{one}"),
            _ => format!("->({})", list(results)),
        };
        Signature::parse(&format!("({params}){results}"))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replace(',', ", ").replace("->", " -> "))
    }
}

/// What the host offers to plugins, by module and name.
pub(super) type ImportSignatures = HashMap<(String, String), Signature>;

#[cfg(test)]
mod tests {
    use super::Signature;

    #[test]
    fn a_signature_reads_the_same_whoever_wrote_it() {
        let none: [&str; 0] = [];
        for (made, spelled) in [
            (Signature::of(none, none), "()"),
            (Signature::of(["i32", "i32"], ["i64"]), "( i32,i32 )->i64"),
            (Signature::of(["f64"], ["i32", "i64"]), "(f64) -> (i32, i64)"),
        ] {
            assert_eq!(made, Signature::parse(spelled));
        }
        assert_eq!(Signature::of(["i32", "i32"], ["i64"]).to_string(), "(i32, i32) -> i64");
    }
}

//! Signatures of functions, in one spelling for what a module has, what the host offers and what a user requires.

use std::collections::HashMap;
use std::fmt;

/// The signature of a function, as in `(i32, i32) -> i64`, compared by its spelling in the text format's types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature(String);

impl Signature {
    /// Reads what a user wrote. Whitespace has no meaning.
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

/// The signatures of the functions that the host offers, by module and name.
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

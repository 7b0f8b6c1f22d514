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

/// What the host offers under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    Function(Signature),
    /// Pages.
    Memory {
        minimum: u64,
        maximum: Option<u64>,
    },
    /// Elements.
    Table {
        minimum: u64,
        maximum: Option<u64>,
    },
    Global {
        ty: String,
        is_mutable: bool,
    },
}

impl Offered {
    /// Returns whether an import of the second kind takes what the first one is.
    pub(super) fn fits(&self, import: &Offered) -> bool {
        let within = |(minimum, maximum): (&u64, &Option<u64>), (least, most): (&u64, &Option<u64>)| {
            minimum >= least && most.is_none_or(|most| maximum.is_some_and(|maximum| maximum <= most))
        };
        match (self, import) {
            (Offered::Memory { minimum, maximum }, Offered::Memory { minimum: least, maximum: most })
            | (Offered::Table { minimum, maximum }, Offered::Table { minimum: least, maximum: most }) => {
                within((minimum, maximum), (least, most))
            }
            _ => self == import,
        }
    }
}

impl fmt::Display for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |minimum: &u64, maximum: &Option<u64>| match maximum {
            Some(maximum) => format!("{minimum} to {maximum}"),
            None => format!("{minimum} or more"),
        };
        match self {
            Offered::Function(signature) => write!(f, "a function {signature}"),
            Offered::Memory { minimum, maximum } => write!(f, "a memory of {} pages", range(minimum, maximum)),
            Offered::Table { minimum, maximum } => {
                write!(f, "a table of {} references to functions", range(minimum, maximum))
            }
            Offered::Global { ty, is_mutable: true } => write!(f, "a mutable global {ty}"),
            Offered::Global { ty, is_mutable: false } => write!(f, "a constant global {ty}"),
        }
    }
}

/// What the host offers, by module and name.
pub(super) type HostImports = HashMap<(String, String), Offered>;

#[cfg(test)]
mod tests {
    use super::{Offered, Signature};

    #[test]
    fn an_import_takes_what_is_within_its_limits() {
        let memory = |minimum, maximum| Offered::Memory { minimum, maximum };
        assert!(memory(2, Some(4)).fits(&memory(1, None)) && memory(2, Some(4)).fits(&memory(2, Some(4))));
        assert!(!memory(2, Some(4)).fits(&memory(3, None)), "too small");
        assert!(!memory(2, Some(4)).fits(&memory(1, Some(3))), "may become too large");
        assert!(!memory(2, None).fits(&memory(1, Some(3))), "may become too large");
        assert!(!memory(2, None).fits(&Offered::Table { minimum: 1, maximum: None }));
        let global = |ty: &str, is_mutable| Offered::Global { ty: ty.to_owned(), is_mutable };
        assert!(global("i32", true).fits(&global("i32", true)));
        assert!(!global("i32", true).fits(&global("i32", false)) && !global("i32", true).fits(&global("i64", true)));
        assert_eq!(memory(2, Some(4)).to_string(), "a memory of 2 to 4 pages");
    }

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

//! The modules of a node by their names, in the order in which requests meet them.

use std::sync::Arc;

/// Something that there is once for each module.
pub trait Named {
    /// The module's name.
    fn name(&self) -> &str;
}

/// What there is of each module, in order. There is at least one.
pub struct Chain<T>(Arc<[Arc<T>]>);

/// There is no module of this name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no module {name} here: this node has {}", known.join(", "))]
pub struct UnknownModule {
    pub name: String,
    /// Those that there are.
    pub known: Vec<String>,
}

impl<T: Named> Chain<T> {
    /// Chains modules in this order.
    ///
    /// # Panics
    /// If there is none: a configuration always has one.
    pub fn new(links: Vec<Arc<T>>) -> Chain<T> {
        assert!(!links.is_empty(), "a node has a module");
        Chain(links.into())
    }

    pub fn first(&self) -> &Arc<T> {
        &self.0[0]
    }

    /// Returns the one with this name, or the first one if none is said.
    pub fn get(&self, name: Option<&str>) -> Result<&Arc<T>, UnknownModule> {
        let Some(name) = name else { return Ok(self.first()) };
        self.iter().find(|link| link.name() == name).ok_or_else(|| UnknownModule {
            name: name.to_owned(),
            known: self.iter().map(|link| link.name().to_owned()).collect(),
        })
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Arc<T>> {
        self.0.iter()
    }

    /// Returns whether there is more than one.
    pub fn has_several(&self) -> bool {
        self.0.len() > 1
    }
}

impl<T> Clone for Chain<T> {
    fn clone(&self) -> Chain<T> {
        Chain(Arc::clone(&self.0))
    }
}

/// The longest name, in bytes.
pub const NAME_LIMIT: usize = 64;

/// Returns whether a name can mean nothing but itself, in a path, a log or a label.
pub fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= NAME_LIMIT && !name.starts_with('.') && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Named for &'static str {
        fn name(&self) -> &str {
            self
        }
    }

    #[test]
    fn a_missing_name_is_the_first_one_and_an_unknown_one_is_told_with_those_that_there_are() {
        let chain = Chain::new(vec![Arc::new("b"), Arc::new("a")]);
        assert_eq!((**chain.get(None).unwrap(), **chain.get(Some("a")).unwrap()), ("b", "a"));
        assert!(chain.has_several());
        let unknown = chain.get(Some("A")).unwrap_err();
        assert_eq!(unknown.known, ["b", "a"]);
        assert_eq!(unknown.to_string(), "there is no module A here: this node has b, a");
    }

    #[test]
    fn names_are_no_paths() {
        assert!(["a", "bad-bot-blocker", "v1.2_3"].into_iter().all(is_name));
        assert!(!["", ".", "..", ".a", "a/b", "a b", "ä", &"a".repeat(65)].into_iter().any(is_name));
    }
}

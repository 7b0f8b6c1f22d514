//! What serves is two things that go together: a module, and the rule file that it was set up with.

use std::sync::Arc;

use bytes::Bytes;
use hotslot::{Candidate, Digest};

/// A module and its rule file. Cloning shares the bytes, and comparing looks at the digests.
#[derive(Clone)]
pub struct Release {
    pub module: Module,
    pub rules: RuleFile,
}

/// The bytes of a module.
#[derive(Clone)]
pub struct Module {
    bytes: Bytes,
    digest: Digest,
}

impl Module {
    pub fn new(bytes: impl Into<Bytes>) -> Module {
        let bytes = bytes.into();
        Module { digest: Digest::of(&bytes), bytes }
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Release {
    pub fn new(module: impl Into<Bytes>, rules: impl Into<Arc<[u8]>>) -> Release {
        Release { module: Module::new(module), rules: RuleFile::new(rules) }
    }

    /// Returns whether these are the digests of its module and its rule file.
    pub fn is_of(&self, module: Digest, rules: Digest) -> bool {
        (self.module.digest, self.rules.digest) == (module, rules)
    }

    /// Returns what a slot loads: the module, configured with the rule file.
    pub fn candidate(&self) -> Candidate {
        Candidate::new(&self.module.bytes[..]).config(self.rules.bytes())
    }
}

impl PartialEq for Release {
    fn eq(&self, other: &Release) -> bool {
        self.is_of(other.module.digest, other.rules.digest)
    }
}

/// The content of `waf-config.json`.
#[derive(Clone)]
pub struct RuleFile {
    bytes: Arc<[u8]>,
    digest: Digest,
}

impl RuleFile {
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> RuleFile {
        let bytes = bytes.into();
        RuleFile { digest: Digest::of(&bytes), bytes }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// This file with a dynamic rule more, or another one in the place of the rule with the same id.
    ///
    /// The rule is only looked at as far as that takes; the module says whether it understands it.
    pub fn with_rule(&self, rule: serde_json::Value) -> Result<RuleFile, String> {
        let mut file: serde_json::Value =
            serde_json::from_slice(&self.bytes).map_err(|error| format!("the rule file is no JSON: {error}"))?;
        let id = rule.get("id").and_then(|id| id.as_str()).ok_or("a rule is an object with an `id`")?.to_owned();
        let file = file.as_object_mut().ok_or("the rule file is no object")?;
        let dynamic = file.entry("dynamic").or_insert_with(|| serde_json::json!([]));
        let dynamic = dynamic.as_array_mut().ok_or("`dynamic` in the rule file is no list")?;
        match dynamic.iter_mut().find(|other| other.get("id").and_then(|id| id.as_str()) == Some(&id)) {
            Some(same) => *same = rule,
            None => dynamic.push(rule),
        }
        let mut text = serde_json::to_string_pretty(file).map_err(|error| error.to_string())?;
        text.push('\n');
        Ok(RuleFile::new(text.into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::RuleFile;
    use serde_json::json;

    #[test]
    fn a_rule_is_added_once() {
        let file = RuleFile::new(&b"{\"families\": {}}"[..]);
        let file = file.with_rule(json!({"id": "a", "pattern": "x"})).unwrap();
        let file = file.with_rule(json!({"id": "b", "pattern": "x"})).unwrap();
        let file = file.with_rule(json!({"id": "a", "pattern": "y"})).unwrap();
        let read: serde_json::Value = serde_json::from_slice(file.bytes()).unwrap();
        let expected = json!({
            "families": {},
            "dynamic": [{"id": "a", "pattern": "y"}, {"id": "b", "pattern": "x"}],
        });
        assert_eq!(read, expected);
        assert!(file.with_rule(json!("no rule")).is_err());
    }
}

//! The archive's list: what to start on, and what a rollback goes back to. Modules and rule files each have a line of their own,
//! because they are rolled back apart.

use serde::{Deserialize, Serialize};

use crate::release::Release;

/// How many versions the list names.
const LISTED: usize = 32;
/// How many modules, and how many rule files, can be gone back to one by one.
const LINE: usize = 64;

#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct List {
    /// The name of the module that it is about. One of an earlier version of the node does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The versions to start on, the best one first.
    pub releases: Vec<Entry>,
    /// The module that serves, the one that it took the place of, and so on.
    #[serde(default)]
    pub modules: Vec<String>,
    /// The same of the rule files.
    #[serde(default)]
    pub rules: Vec<String>,
    /// The digests of the two files when they were last read: others mean that somebody replaced them meanwhile.
    pub module_file: Option<String>,
    pub rule_file: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub module: String,
    pub rules: String,
}

impl Entry {
    pub fn of(release: &Release) -> Entry {
        Entry { module: release.module.digest().to_string(), rules: release.rules.digest().to_string() }
    }
}

impl List {
    /// Reads a list. One of an earlier version of the node has no lines: they are what the releases say.
    pub fn read(bytes: &[u8]) -> serde_json::Result<List> {
        let mut list: List = serde_json::from_slice(bytes)?;
        if list.modules.is_empty() {
            for Entry { module, rules } in list.releases.clone().into_iter().rev() {
                push(&mut list.modules, module);
                push(&mut list.rules, rules);
            }
        }
        Ok(list)
    }

    pub fn serves(&mut self, entry: Entry) {
        push(&mut self.modules, entry.module.clone());
        push(&mut self.rules, entry.rules.clone());
        self.head(entry);
    }

    pub fn starts_on(&mut self, entry: Entry) {
        return_to(&mut self.modules, &entry.module);
        return_to(&mut self.rules, &entry.rules);
        self.head(entry);
    }

    pub fn rolled_back(&mut self, bad: &Entry, good: Entry) {
        // What was left is not started on, with whatever else it served.
        self.releases.retain(|other| match (bad.module == good.module, bad.rules == good.rules) {
            (true, false) => other.rules != bad.rules,
            (false, true) => other.module != bad.module,
            _ => other != bad,
        });
        self.starts_on(good);
    }

    fn head(&mut self, entry: Entry) {
        self.releases.retain(|other| *other != entry);
        self.releases.insert(0, entry);
        self.releases.truncate(LISTED);
    }
}

/// Puts what serves at the head of a line.
fn push(line: &mut Vec<String>, digest: String) {
    line.retain(|other| *other != digest);
    line.insert(0, digest);
    line.truncate(LINE);
}

/// Takes out what came after `digest`, as somebody had a reason to leave it. What is not in the line goes to its head.
fn return_to(line: &mut Vec<String>, digest: &str) {
    match line.iter().position(|other| other == digest) {
        Some(at) => drop(line.drain(..at)),
        None => push(line, digest.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, List};

    fn entry(module: &str, rules: &str) -> Entry {
        Entry { module: module.to_owned(), rules: rules.to_owned() }
    }

    #[test]
    fn modules_and_rules_go_back_apart() {
        let mut list = List::default();
        [("m1", "r1"), ("m2", "r1"), ("m2", "r2"), ("m3", "r2")]
            .into_iter()
            .for_each(|(module, rules)| list.serves(entry(module, rules)));
        list.rolled_back(&entry("m3", "r2"), entry("m2", "r2"));
        list.rolled_back(&entry("m2", "r2"), entry("m1", "r2"));
        assert_eq!((list.modules.join(" "), list.rules.join(" ")), ("m1".to_owned(), "r2 r1".to_owned()));
        let left: Vec<_> = list.releases.iter().map(|entry| format!("{} {}", entry.module, entry.rules)).collect();
        assert_eq!(left, ["m1 r2", "m1 r1"], "no module that was left is started on");
        // Forward again.
        list.rolled_back(&entry("m1", "r2"), entry("m3", "r2"));
        assert_eq!(list.modules, ["m3", "m1"]);
    }

    #[test]
    fn a_list_without_lines_gets_them_from_its_releases() {
        let old = br#"{"releases": [{"module": "m2", "rules": "r1"}, {"module": "m1", "rules": "r1"}],
            "module_file": null, "rule_file": null}"#;
        let list = List::read(old).unwrap();
        assert_eq!((list.modules, list.rules), (vec!["m2".to_owned(), "m1".to_owned()], vec!["r1".to_owned()]));
    }
}

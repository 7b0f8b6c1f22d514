//! The rule file, `waf-config.json`: edited rule by rule, and compared with another one.
//!
//! It is only understood as far as that takes: what a rule means, and whether it means anything, is for the module to say. Rules of
//! another engine are another text, such as a bundle of files in SecLang: those are replaced as a whole.

use std::sync::Arc;

use hotslot::Digest;
use serde::Serialize;
use serde_json::{Map, Value};

/// The content of a rule file. Cloning shares it.
#[derive(Clone)]
pub struct RuleFile {
    bytes: Arc<[u8]>,
    digest: Digest,
}

/// One change to a rule file.
#[derive(Clone, Debug)]
pub enum Edit {
    /// One dynamic rule more, or another one in the place of the rule with the same id.
    Put(Value),
    /// One dynamic rule more. There must be none with its id.
    Add(Value),
    /// The dynamic rule with this id goes.
    Remove(String),
    /// Everything is replaced.
    Replace(Value),
    /// Everything is replaced, by what is no JSON.
    ReplaceText(String),
}

/// Why a rule file cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    #[error("{0}")]
    Malformed(String),
    #[error("there is a rule {0:?} already: PUT replaces it")]
    Exists(String),
    #[error("there is no dynamic rule {0:?}: GET /api/v1/rules lists them")]
    Missing(String),
    #[error(
        "the rules that serve are no JSON but a text of their engine: send all of it as text/plain to PUT /api/v1/rules/file"
    )]
    Text,
}

fn malformed(problem: impl Into<String>) -> EditError {
    EditError::Malformed(problem.into())
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

    /// Returns its content if it is no JSON, but a text that only its engine understands.
    pub fn text(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.bytes).ok()?;
        let is_json = matches!(text.trim_start().chars().next(), None | Some('{' | '['));
        (!is_json).then_some(text)
    }

    /// Returns whether these are rules of another engine than those, as far as their form tells.
    pub fn is_foreign_to(&self, other: &RuleFile) -> bool {
        self.text().is_some() != other.text().is_some()
    }

    /// Returns its content as JSON.
    pub fn value(&self) -> Result<Value, EditError> {
        if self.text().is_some() {
            return Err(EditError::Text);
        }
        serde_json::from_slice(&self.bytes).map_err(|error| malformed(format!("the rule file is no JSON: {error}")))
    }

    /// Returns the dynamic rules.
    pub fn rules(&self) -> Result<Vec<Value>, EditError> {
        Ok(self.value()?.get("dynamic").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Returns this file with a change, and what the change was.
    pub fn edited(&self, edit: Edit) -> Result<(RuleFile, String), EditError> {
        let replaced = "the rule file was replaced".to_owned();
        match edit {
            Edit::Replace(new) => Ok((RuleFile::of(&new)?, replaced)),
            Edit::ReplaceText(text) => Ok((RuleFile::new(text.into_bytes()), replaced)),
            Edit::Put(rule) => self.with_dynamic(|dynamic| {
                let id = new_id_of(&rule)?;
                match dynamic.iter_mut().find(|other| id_of(other).is_ok_and(|other| other == id)) {
                    Some(same) => {
                        *same = rule;
                        Ok(format!("the rule {id} was changed"))
                    }
                    None => {
                        dynamic.push(rule);
                        Ok(format!("the rule {id} was added"))
                    }
                }
            }),
            Edit::Add(rule) => self.with_dynamic(|dynamic| {
                let id = new_id_of(&rule)?;
                if dynamic.iter().any(|other| id_of(other).is_ok_and(|other| other == id)) {
                    return Err(EditError::Exists(id));
                }
                dynamic.push(rule);
                Ok(format!("the rule {id} was added"))
            }),
            Edit::Remove(id) => self.with_dynamic(|dynamic| {
                let before = dynamic.len();
                dynamic.retain(|rule| id_of(rule).is_ok_and(|other| other != id));
                if dynamic.len() == before {
                    return Err(EditError::Missing(id));
                }
                Ok(format!("the rule {id} was deleted"))
            }),
        }
    }

    /// Returns this file with its dynamic rules changed, and what `change` says that it did.
    fn with_dynamic(
        &self,
        change: impl FnOnce(&mut Vec<Value>) -> Result<String, EditError>,
    ) -> Result<(RuleFile, String), EditError> {
        let mut value = self.value()?;
        let file = value.as_object_mut().ok_or_else(|| malformed("the rule file is no object"))?;
        let dynamic = file.entry("dynamic").or_insert_with(|| Value::Array(Vec::new()));
        let dynamic = dynamic.as_array_mut().ok_or_else(|| malformed("`dynamic` in the rule file is no list"))?;
        let did = change(dynamic)?;
        Ok((RuleFile::of(&value)?, did))
    }

    /// Writes a rule file.
    pub fn of(value: &Value) -> Result<RuleFile, EditError> {
        let mut text = serde_json::to_string_pretty(value).map_err(|error| malformed(error.to_string()))?;
        text.push('\n');
        Ok(RuleFile::new(text.into_bytes()))
    }

    /// Returns this file without some rules, dynamic or built in.
    pub fn without(&self, ids: &[String]) -> Result<RuleFile, EditError> {
        if let Some(text) = self.text() {
            return without_seclang(text, ids);
        }
        let mut value = self.value()?;
        let file = value.as_object_mut().ok_or_else(|| malformed("the rule file is no object"))?;
        let is_one = |rule: &Value| id_of(rule).is_ok_and(|id| ids.contains(&id));
        let mut dynamic = Vec::new();
        if let Some(rules) = file.get_mut("dynamic").and_then(Value::as_array_mut) {
            rules.retain(|rule| {
                dynamic.extend(is_one(rule).then(|| id_of(rule).unwrap_or_default()));
                !is_one(rule)
            });
        }
        let built_in = file.entry("rules").or_insert_with(|| Value::Object(Map::new()));
        let built_in = built_in.as_object_mut().ok_or_else(|| malformed("`rules` in the rule file is no object"))?;
        for id in ids.iter().filter(|id| !dynamic.contains(id)) {
            built_in.insert(id.clone(), serde_json::json!({ "enabled": false }));
        }
        RuleFile::of(&value)
    }

    /// Returns what is different in `new`.
    pub fn diff(&self, new: &RuleFile) -> Result<Diff, EditError> {
        let (was, is) = (self.value()?, new.value()?);
        let rules = |file: &Value| file.get("dynamic").and_then(Value::as_array).cloned().unwrap_or_default();
        let (old, new) = (rules(&was), rules(&is));
        let same = |rules: &[Value], rule: &Value| {
            let id = id_of(rule).ok()?;
            rules.iter().find(|other| id_of(other).is_ok_and(|other| other == id)).cloned()
        };
        let mut diff = Diff::default();
        for rule in &new {
            match same(&old, rule) {
                None => diff.added.push(rule.clone()),
                Some(from) if from != *rule => diff.changed.push(Changed { from, to: rule.clone() }),
                Some(_) => {}
            }
        }
        diff.removed.extend(old.into_iter().filter(|rule| same(&new, rule).is_none()));
        let empty = Map::new();
        let (was, is) = (was.as_object().unwrap_or(&empty), is.as_object().unwrap_or(&empty));
        for key in was.keys().chain(is.keys().filter(|key| !was.contains_key(*key))).filter(|key| *key != "dynamic") {
            let (from, to) = (was.get(key).cloned(), is.get(key).cloned());
            if from != to {
                let changed = Changed { from: from.unwrap_or_default(), to: to.unwrap_or_default() };
                diff.settings.insert(key.clone(), changed);
            }
        }
        Ok(diff)
    }
}

/// Rules in SecLang without some of them, which are numbers there.
fn without_seclang(text: &str, ids: &[String]) -> Result<RuleFile, EditError> {
    for id in ids {
        let names_it = |at: usize| !text[at + 3 + id.len()..].starts_with(|next: char| next.is_ascii_digit());
        let is_number = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || !text.match_indices(&format!("id:{id}")).any(|(at, _)| names_it(at)) {
            return Err(EditError::Missing(id.clone()));
        }
    }
    let text = format!("{text}\n#@ file exceptions.conf\nSecRuleRemoveById {}\n", ids.join(" "));
    Ok(RuleFile::new(text.into_bytes()))
}

fn id_of(rule: &Value) -> Result<String, EditError> {
    let id = rule.get("id").and_then(Value::as_str);
    id.map(str::to_owned).ok_or_else(|| malformed("a rule is an object with an `id`"))
}

/// Ids that rules cannot be found by: something else is at these paths of the API.
const ROUTES: [&str; 3] = ["diff", "file", "rollback"];

fn new_id_of(rule: &Value) -> Result<String, EditError> {
    let id = id_of(rule)?;
    if ROUTES.contains(&id.as_str()) {
        return Err(malformed(format!("a rule cannot have the id {id:?}: /api/v1/rules/{id} is something else")));
    }
    Ok(id)
}

/// What is different between two rule files.
#[derive(Default, Serialize)]
pub struct Diff {
    pub added: Vec<Value>,
    pub removed: Vec<Value>,
    pub changed: Vec<Changed>,
    /// What is not a dynamic rule, by its key; null where it is not there.
    pub settings: std::collections::BTreeMap<String, Changed>,
}

#[derive(Serialize)]
pub struct Changed {
    pub from: Value,
    pub to: Value,
}

impl Diff {
    /// Says it in a few words.
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        let ids = |rules: &[Value]| rules.iter().filter_map(|rule| id_of(rule).ok()).collect::<Vec<_>>().join(", ");
        for (what, ids) in [("without", ids(&self.added)), ("again with", ids(&self.removed))] {
            if !ids.is_empty() {
                parts.push(format!("{what} {ids}"));
            }
        }
        let changed: Vec<_> = self.changed.iter().filter_map(|changed| id_of(&changed.from).ok()).collect();
        let changed = changed.iter().chain(self.settings.keys()).cloned().collect::<Vec<_>>().join(", ");
        if !changed.is_empty() {
            parts.push(format!("with the earlier {changed}"));
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::{Edit, EditError, RuleFile};
    use serde_json::json;

    #[test]
    fn a_rule_is_added_once() {
        let file = RuleFile::new(&b"{\"families\": {}}"[..]);
        let put = |file: &RuleFile, rule| file.edited(Edit::Put(rule)).unwrap().0;
        let file = put(&file, json!({"id": "a", "pattern": "x"}));
        let file = put(&file, json!({"id": "b", "pattern": "x"}));
        let file = put(&file, json!({"id": "a", "pattern": "y"}));
        let expected = json!({
            "families": {},
            "dynamic": [{"id": "a", "pattern": "y"}, {"id": "b", "pattern": "x"}],
        });
        assert_eq!(file.value().unwrap(), expected);
        assert!(file.edited(Edit::Put(json!("no rule"))).is_err());
        for id in super::ROUTES {
            for edit in [Edit::Put(json!({ "id": id })), Edit::Add(json!({ "id": id }))] {
                assert!(matches!(file.edited(edit), Err(EditError::Malformed(_))), "{id}");
            }
        }
        assert!(matches!(file.edited(Edit::Add(json!({"id": "a"}))), Err(EditError::Exists(_))));
        assert!(matches!(file.edited(Edit::Remove("c".to_owned())), Err(EditError::Missing(_))));
        let (file, _) = file.edited(Edit::Remove("a".to_owned())).unwrap();
        assert_eq!(file.rules().unwrap(), [json!({"id": "b", "pattern": "x"})]);
    }

    #[test]
    fn rules_in_seclang_are_a_text_that_is_replaced_as_a_whole_and_can_be_without_some() {
        let text = RuleFile::new(&b"SecRule ARGS \"x\" \"id:1234,deny\"\n"[..]);
        let json = RuleFile::new(&b"{}"[..]);
        assert!(text.is_foreign_to(&json) && !text.is_foreign_to(&text) && !json.is_foreign_to(&json));
        assert!(matches!(text.edited(Edit::Put(json!({"id": "a"}))), Err(EditError::Text)));
        let (other, _) = json.edited(Edit::ReplaceText("SecRuleEngine On\n".to_owned())).unwrap();
        assert_eq!(other.text(), Some("SecRuleEngine On\n"));
        let (back, _) = text.edited(Edit::Replace(json!({"dynamic": []}))).unwrap();
        assert_eq!(back.value().unwrap(), json!({"dynamic": []}));
        let without = text.without(&["1234".to_owned()]).unwrap();
        assert!(without.text().unwrap().ends_with("#@ file exceptions.conf\nSecRuleRemoveById 1234\n"));
        for unknown in ["123", "12345", "", "sqli-union"] {
            assert!(matches!(text.without(&[unknown.to_owned()]), Err(EditError::Missing(_))), "{unknown}");
        }
    }

    #[test]
    fn a_difference_is_told_by_rule_and_by_setting() {
        let old =
            RuleFile::new(json!({"dynamic": [{"id": "a"}, {"id": "b", "x": 1}], "limits": 1}).to_string().into_bytes());
        let new =
            RuleFile::new(json!({"dynamic": [{"id": "b", "x": 2}, {"id": "c"}], "rules": 3}).to_string().into_bytes());
        let diff = serde_json::to_value(old.diff(&new).unwrap()).unwrap();
        let expected = json!({
            "added": [{"id": "c"}],
            "removed": [{"id": "a"}],
            "changed": [{"from": {"id": "b", "x": 1}, "to": {"id": "b", "x": 2}}],
            "settings": {"limits": {"from": 1, "to": null}, "rules": {"from": null, "to": 3}},
        });
        assert_eq!(diff, expected);
        assert_eq!(old.diff(&new).unwrap().summary(), "without c; again with a; with the earlier b, limits, rules");
    }
}

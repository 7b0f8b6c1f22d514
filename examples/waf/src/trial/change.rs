//! How a verdict changes from the serving version to the tried one. Two that differ only in the rule are the same here: the
//! client is told the same.

use serde::{Deserialize, Serialize};
use waf_interface::Verdict;

use super::seen::Said;

/// A kind of difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub from: String,
    pub to: String,
    /// The rule that says so in the tried version, or that said otherwise in the serving one; what failed, where there is no
    /// verdict.
    pub rule: String,
}

/// Writes down how two answers differ, if they do. The library counts equal texts as one kind.
pub fn between(serving: &Said, tried: &Said) -> Option<String> {
    if serving.name() == tried.name() {
        return None;
    }
    let rule = match tried {
        Said::Verdict(Verdict::Allow, _) => serving.rule(),
        _ => tried.rule(),
    };
    let change = Change { from: serving.name().to_owned(), to: tried.name().to_owned(), rule: rule.to_owned() };
    Some(serde_json::to_string(&change).unwrap_or_default())
}

/// Reads what [`between`] wrote, or what the library says of a call that panicked.
pub fn read(what: &str) -> Change {
    serde_json::from_str(what).unwrap_or_else(|_| Change {
        from: String::new(),
        to: "none".to_owned(),
        rule: what.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_named_by_the_rule_that_makes_it() {
        let said = |verdict, rule: &str| Said::Verdict(verdict, rule.to_owned());
        let allow = || said(Verdict::Allow, "");
        let change = |from: &Said, to: &Said| {
            between(from, to).map(|what| read(&what)).map(|change| [change.from, change.to, change.rule].join(" "))
        };
        assert_eq!(change(&allow(), &said(Verdict::Block, "sqli")).as_deref(), Some("allow block sqli"));
        assert_eq!(change(&said(Verdict::Block, "sqli"), &allow()).as_deref(), Some("block allow sqli"));
        assert_eq!(change(&allow(), &Said::Nothing("trap")).as_deref(), Some("allow none trap"));
        assert_eq!(change(&Said::Nothing("trap"), &allow()).as_deref(), Some("none allow trap"));
        assert_eq!(change(&said(Verdict::Block, "a"), &said(Verdict::Block, "b")), None);
        assert_eq!(change(&Said::Nothing("trap"), &Said::Nothing("deadline")), None);
        assert_eq!(read("the call failed: x").rule, "the call failed: x");
    }
}

//! What the engine cannot do, rule by rule. It would go on without: skip a directive with a line in a log that a plugin does not
//! have, keep a rule that can never match, let an operator that it does not have match nothing, or execute no action of a chain but
//! those of its first rule. A firewall must not do that in silence.

use std::sync::LazyLock;

use regex::Regex;
use zentinel_modsec::engine::CtlDirective;
use zentinel_modsec::parser::{
    Action, DataAction, FlowAction, OperatorName, SecRule, Selection, SetVarSpec, SetVarValue, VariableName,
    VariableSpec, XmlTarget,
};
use zentinel_modsec::transformations::TransformationPipeline;

use crate::actions::Written;

/// Actions that the engine takes for one that does nothing.
const DO_NOTHING: [&str; 9] =
    ["append", "deprecatevar", "exec", "pause", "prepend", "proxy", "setsid", "setuid", "xmlns"];
/// `ctl` actions about what a plugin of this interface has not got: logs, and a body that is always there.
const IDLE_CONTROLS: [&str; 4] = ["auditengine", "auditlogparts", "debugloglevel", "forcerequestbodyvariable"];

/// What is wrong with a rule, and what is only weaker than it should be.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) cannot: Vec<String>,
    pub(crate) weaker: Vec<String>,
}

impl Found {
    fn cannot(&mut self, what: impl IntoIterator<Item = String>) {
        for what in what {
            if !self.cannot.contains(&what) {
                self.cannot.push(what);
            }
        }
    }
}

/// Where a rule stands in its chain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// It is the first one, or alone.
    First,
    /// There are rules before and behind it.
    Middle,
    /// The engine executes its actions if they are moved to the first one.
    Last,
}

/// Looks at a rule that matches something.
pub(crate) fn rule(rule: &SecRule, written: &[Written], link: Link, found: &mut Found) {
    targets(&rule.variables, found);
    operator(rule, found);
    actions(&rule.actions, written, link, found);
}

fn targets(variables: &[VariableSpec], found: &mut Found) {
    let mut dead = Vec::new();
    for variable in variables {
        match &variable.selection {
            Some(Selection::Key(key)) if variable.name == VariableName::Tx && is_capture(key) => {
                dead.push(format!("TX:{key}, as the engine keeps nothing of what an operator captures"))
            }
            _ if !variable.name.is_implemented() => dead.push(format!("{:?}", variable.name)),
            selection
                if variable.name == VariableName::Xml && XmlTarget::from_selection(selection.as_ref()).is_none() =>
            {
                dead.push("XML with a path other than /* and //@*".to_owned());
            }
            Some(Selection::Regex(pattern)) => found.cannot(unfit(pattern)),
            _ => {}
        }
        let patterns = variable
            .exclusions
            .iter()
            .filter_map(|excluded| excluded.split_once(":/").and_then(|(_, pattern)| pattern.strip_suffix('/')));
        found.cannot(patterns.filter_map(unfit));
    }
    if dead.is_empty() {
        return;
    }
    let (all, told) = (dead.len() == variables.len(), dead.join(", "));
    if all {
        found.cannot([format!("it can never match, as the engine has none of its targets: {told}")]);
    } else {
        found.weaker.push(format!("the engine does not look at {told}"));
    }
}

/// Whether a key of TX is where an operator's captures go.
fn is_capture(key: &str) -> bool {
    matches!(key.as_bytes(), [digit] if digit.is_ascii_digit())
}

/// Why a pattern makes no automaton. Look-around and back-references are among the reasons, and its size.
fn unfit(pattern: &str) -> Option<String> {
    let error = Regex::new(pattern).err()?;
    let reason = error.to_string();
    let reason = reason.lines().last().unwrap_or_default().trim();
    Some(format!("a pattern that this engine cannot match: {reason}"))
}

fn operator(rule: &SecRule, found: &mut Found) {
    let operator = &rule.operator;
    let argument = operator.argument.as_str();
    let cannot = match operator.name {
        OperatorName::Rx if argument.contains("%{") => {
            Some("the engine cannot match a pattern with a macro in it".to_owned())
        }
        OperatorName::Rx => unfit(argument),
        OperatorName::VerifyCc
        | OperatorName::VerifySsn
        | OperatorName::VerifyCpf
        | OperatorName::ValidateHash
        | OperatorName::ValidateDtd
        | OperatorName::ValidateSchema
        | OperatorName::Rbl
        | OperatorName::GeoLookup
        | OperatorName::GsbLookup
        | OperatorName::InspectFile
        | OperatorName::FuzzyHash
        | OperatorName::Rsub => Some(format!("the engine has no operator @{:?}", operator.name).to_lowercase()),
        _ => None,
    };
    found.cannot(cannot);
    found.cannot(macros(argument));
}

/// Why macros in a text come to nothing. Those of `TX` are all that the engine knows.
fn macros(text: &str) -> Option<String> {
    static MACRO: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"%\{([^}]*)\}").expect("a pattern"));
    let is_known = |name: &str| match name.split_once('.') {
        Some((collection, key)) => collection.eq_ignore_ascii_case("tx") && !is_capture(key),
        None => false,
    };
    let names = MACRO.captures_iter(text).filter_map(|found| Some(found.get(1)?.as_str().to_owned()));
    let unknown = names.into_iter().find(|name| !is_known(name))?;
    Some(format!("the engine has no value for the macro %{{{unknown}}}"))
}

/// Looks at the actions of a rule, or of a `SecAction`.
pub(crate) fn actions(actions: &[Action], written: &[Written], link: Link, found: &mut Found) {
    for action in written {
        if DO_NOTHING.contains(&action.name.as_str()) {
            found.cannot([format!("the engine does not do {}", action.name)]);
        }
    }
    let mut transformations = Vec::new();
    for action in actions {
        match action {
            Action::Transformation(name) if name.to_ascii_lowercase().starts_with("parity") => {
                found.cannot([format!("the engine has no transformation t:{name}")]);
            }
            Action::Transformation(name) => transformations.push(name.clone()),
            Action::Data(DataAction::SetVar(set)) if set.collection == "tx" => {
                found.cannot(set_variable(set));
                not_in_the_middle(link, "setvar", found);
            }
            Action::Control(control) => {
                not_in_the_middle(link, "ctl", found);
                let is_idle = IDLE_CONTROLS.contains(&control.directive.trim().to_ascii_lowercase().as_str());
                if let (CtlDirective::Unsupported { directive, reason, .. }, false) =
                    (CtlDirective::parse(control), is_idle)
                {
                    found.cannot([format!("the engine does not do ctl:{directive}: {reason}")]);
                }
            }
            Action::Flow(FlowAction::Skip(_) | FlowAction::SkipAfter(_)) if link != Link::First => {
                found.cannot(["the engine skips for the first rule of a chain only".to_owned()]);
            }
            Action::Flow(FlowAction::MultiMatch) => {
                found.weaker.push(
                    "the engine matches once, when all transformations are done, in spite of multiMatch".to_owned(),
                );
            }
            _ => {}
        }
    }
    if let Err(error) = TransformationPipeline::from_names(&transformations) {
        found.cannot([error.to_string()]);
    }
}

fn not_in_the_middle(link: Link, name: &str, found: &mut Found) {
    if link == Link::Middle {
        found.cannot([format!("the engine executes no {name} in the middle of a chain")]);
    }
}

fn set_variable(set: &SetVarSpec) -> Option<String> {
    if set.key.contains("%{") {
        return Some("the engine has no macros in the names of variables".to_owned());
    }
    match &set.value {
        SetVarValue::Macro(value) => macros(value),
        _ => None,
    }
}

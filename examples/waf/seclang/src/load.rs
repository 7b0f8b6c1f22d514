//! From a bundle of rule files to what the engine runs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use waf_rule_bundle::{Bundle, Directive, Malformed, Part, Place, directives, file_name};
use zentinel_modsec::Error;
use zentinel_modsec::engine::CompiledRuleset;
use zentinel_modsec::parser::{
    self, Action, DataAction, DisruptiveAction, FlowAction, LoggingAction, MetadataAction, OperatorName, Parser,
    SecRule, SetVarValue, VariableName,
};

use crate::actions;
use crate::check::{self, Found, Link};
use crate::config::{ConfigError, Unsupported};
use crate::pcre;

/// Rules have few thousand directives at the most.
const MOST_DIRECTIVES: usize = 20_000;
/// Directives that say how a server keeps logs and files, or what it is called. They change no verdict.
const IDLE: [&str; 16] = [
    "secauditengine",
    "secauditlog",
    "secauditlogformat",
    "secauditlogparts",
    "secauditlogrelevantstatus",
    "secauditlogstoragedir",
    "secauditlogtype",
    "seccollectiontimeout",
    "seccomponentsignature",
    "secdatadir",
    "secdebuglog",
    "secdebugloglevel",
    "secresponsebodyaccess",
    "secserversignature",
    "sectmpdir",
    "secuploaddir",
];

/// What is known of a rule besides what the engine knows: what a verdict is explained with.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    pub(crate) message: String,
    /// As syslog counts: 0 is the worst.
    pub(crate) severity: u8,
    /// It refuses a request by itself.
    pub(crate) disrupts: bool,
    /// It is to be written down.
    pub(crate) logs: bool,
    /// It adds to a score.
    pub(crate) scores: bool,
    /// It looks at nothing but variables of other rules: it adds their scores up.
    pub(crate) sums_up: bool,
    /// The ids of the rules behind it in its chain.
    pub(crate) links: Vec<Option<String>>,
}

/// The rules, loaded.
pub(crate) struct Loaded {
    pub(crate) ruleset: CompiledRuleset,
    pub(crate) about: BTreeMap<String, About>,
    pub(crate) takes_bodies: bool,
    pub(crate) weaknesses: Vec<Unsupported>,
}

/// Loads a bundle, with rules of one's own before it.
pub(crate) fn load(config: &[u8], own: &str) -> Result<Loaded, ConfigError> {
    let bundle = Bundle::read(config)?;
    let mut all = Vec::new();
    for part in &bundle.files {
        all.extend(directives(part)?);
        if let Some(last) = all.last().filter(|_| all.len() > MOST_DIRECTIVES) {
            return Err(last.malformed(format!("there are more than {MOST_DIRECTIVES} directives")).into());
        }
    }
    let mut loader = Loader::new(&bundle, Removed::of(&all)?);
    loader.rules = loader.parsed(own).map_err(|error| ConfigError::Engine(said(&error)))?;
    loader.take_all(&all)?;
    loader.finish()
}

struct Loader<'a> {
    bundle: &'a Bundle<'a>,
    engine: Parser,
    removed: Removed,
    /// Where each id was.
    ids: BTreeMap<u64, Place>,
    markers: BTreeSet<String>,
    /// The markers that rules skip to.
    wanted: Vec<(Place, u64, String)>,
    /// What the engine is to compile, in order.
    rules: Vec<parser::Directive>,
    about: BTreeMap<String, About>,
    takes_bodies: bool,
    cannot: Vec<Unsupported>,
    weaker: Vec<Unsupported>,
}

impl<'a> Loader<'a> {
    fn new(bundle: &'a Bundle<'a>, removed: Removed) -> Loader<'a> {
        Loader {
            bundle,
            engine: Parser::new(),
            removed,
            ids: BTreeMap::new(),
            markers: BTreeSet::new(),
            wanted: Vec::new(),
            rules: Vec::new(),
            about: BTreeMap::new(),
            takes_bodies: true,
            cannot: Vec::new(),
            weaker: Vec::new(),
        }
    }

    fn take_all(&mut self, all: &[Directive<'_>]) -> Result<(), ConfigError> {
        let mut rest = all.iter();
        while let Some(directive) = rest.next() {
            match directive.name.to_ascii_lowercase().as_str() {
                "secrule" => {
                    let mut chain = vec![directive];
                    while chain.last().is_some_and(|last| is_chained(last)) {
                        let next = rest.next().filter(|next| next.is("SecRule"));
                        let next =
                            next.ok_or_else(|| directive.malformed("a chain ends with a rule without `chain`"))?;
                        chain.push(next);
                    }
                    self.chain(&chain)?;
                }
                "secaction" => self.chain(&[directive])?,
                "secmarker" => {
                    self.markers.extend(directive.arguments.first().cloned());
                    self.parse(directive)?;
                }
                "secruleengine" | "secdefaultaction" | "secruleupdatetargetbyid" => self.parse(directive)?,
                "secruleremovebyid" => {}
                "secrequestbodyaccess" => self.takes_bodies = is_on(directive)?,
                "include" | "includeoptional" => {
                    let problem = "a plugin reads no files: `waf bundle-rules` puts what is included into one text";
                    return Err(directive.malformed(problem).into());
                }
                idle if IDLE.contains(&idle) => {}
                _ => {
                    let problem = format!("this engine does not do {}: take it out", directive.name);
                    return Err(directive.malformed(problem).into());
                }
            }
        }
        Ok(())
    }

    /// Has the engine parse a directive that is no rule.
    fn parse(&mut self, directive: &Directive<'_>) -> Result<(), ConfigError> {
        let parsed = self.parsed(&directive.rewritten()).map_err(|error| directive.malformed(said(&error)))?;
        self.rules.extend(parsed);
        Ok(())
    }

    /// Returns what the engine makes of a text.
    fn parsed(&mut self, text: &str) -> Result<Vec<parser::Directive>, Error> {
        let before = self.engine.directives().len();
        self.engine.parse(text)?;
        Ok(self.engine.directives().iter().skip(before).cloned().collect())
    }

    /// Takes a rule with those that are chained to it, or a `SecAction`.
    fn chain(&mut self, chain: &[&Directive<'_>]) -> Result<(), ConfigError> {
        let Some((first, links)) = chain.split_first() else { return Ok(()) };
        let written: Vec<_> = chain.iter().map(|directive| actions::written(action_list(directive))).collect();
        let own = written.first().map(Vec::as_slice).unwrap_or_default();
        let id = match actions::value(own, "id").map(str::parse::<u64>) {
            Some(Ok(id)) => id,
            _ => return Err(first.malformed("a rule has an id, which is a number").into()),
        };
        if self.removed.has(id) {
            return Ok(());
        }
        if let Some(other) = self.ids.insert(id, first.at.clone()) {
            return Err(first.malformed(format!("there is a rule {id} already, at {other}")).into());
        }
        // Rules of the later phases are about responses and logs, which no plugin of this interface sees.
        match actions::value(own, "phase").unwrap_or("2") {
            "1" | "2" => {}
            "3" | "4" | "5" => return Ok(()),
            other => {
                return Err(first
                    .malformed(format!("the engine does not know the phase {other}: it is 1 to 5"))
                    .into());
            }
        }
        let mut parsed = Vec::new();
        for directive in chain {
            match self.parsed(&directive.rewritten()) {
                Ok(one) => parsed.extend(one),
                Err(error) => {
                    self.cannot.push(unsupported(directive, id, said(&error)));
                    return Ok(());
                }
            }
        }
        if parsed.len() != chain.len() {
            return Err(first.malformed("the engine takes it for another number of directives").into());
        }
        for (number, (directive, (parsed, written))) in chain.iter().zip(parsed.iter_mut().zip(&written)).enumerate() {
            let link = match number {
                0 => Link::First,
                _ if number == links.len() => Link::Last,
                _ => Link::Middle,
            };
            let mut found = Found::default();
            match parsed {
                parser::Directive::SecRule(rule) => {
                    if let Some(names) = directive.data_files() {
                        self.put_data(directive, rule, &names)?;
                    }
                    let has_macro = rule.operator.argument.contains("%{");
                    if rule.operator.name == OperatorName::Rx && directive.data_files().is_none() && !has_macro {
                        rule.operator.argument = pcre::translated(&rule.operator.argument);
                    }
                    check::rule(rule, written, link, &mut found);
                }
                parser::Directive::SecAction(action) => check::actions(&action.actions, written, link, &mut found),
                _ => return Err(directive.malformed("the engine takes it for another directive").into()),
            }
            forget(parsed, &mut found);
            self.cannot.extend(found.cannot.into_iter().map(|what| unsupported(directive, id, what)));
            self.weaker.extend(found.weaker.into_iter().map(|what| unsupported(directive, id, what)));
        }
        let skips = own.iter().filter(|action| action.name == "skipafter");
        self.wanted.extend(skips.map(|action| (first.at.clone(), id, action.value.clone())));
        self.about.insert(id.to_string(), about(&parsed));
        move_actions(&mut parsed);
        self.rules.extend(parsed);
        Ok(())
    }

    /// Replaces an operator that reads a file by one that has its entries.
    fn put_data(&self, directive: &Directive<'_>, rule: &mut SecRule, names: &[&str]) -> Result<(), ConfigError> {
        let mut entries = Vec::new();
        for name in names {
            let data = self.bundle.data.get(file_name(name)).ok_or_else(|| {
                directive.malformed(format!("{name} is not in the bundle: `waf bundle-rules` puts it there"))
            })?;
            entries.extend(entries_of(data));
        }
        if names.is_empty() || entries.is_empty() {
            return Err(directive.malformed("there is no entry in its data files").into());
        }
        let operator = &mut rule.operator;
        if directive.operator().is_some_and(|operator| operator.name.starts_with("ip")) {
            operator.name = OperatorName::IpMatch;
            operator.argument = entries.join(",");
        } else if entries.iter().all(|entry| !entry.contains(char::is_whitespace) && !entry.contains("%{")) {
            operator.name = OperatorName::Pm;
            operator.argument = entries.join(" ");
        } else {
            // A phrase with a space in it is more than one to @pm.
            let escaped: Vec<_> = entries.iter().map(|entry| regex::escape(entry).replace('%', "\\x25")).collect();
            operator.name = OperatorName::Rx;
            operator.argument = format!("(?i-u:{})", escaped.join("|"));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Loaded, ConfigError> {
        for (at, rule, marker) in std::mem::take(&mut self.wanted) {
            if !self.markers.contains(&marker) {
                let what = format!("it skips to a marker {marker:?} that there is not, and so all that is behind it");
                self.cannot.push(Unsupported { at, rule: Some(rule), what });
            }
        }
        if !self.cannot.is_empty() {
            return Err(ConfigError::Unsupported(self.cannot));
        }
        let ruleset = CompiledRuleset::compile(self.rules).map_err(|error| ConfigError::Engine(said(&error)))?;
        Ok(Loaded { ruleset, about: self.about, takes_bodies: self.takes_bodies, weaknesses: self.weaker })
    }
}

fn unsupported(directive: &Directive<'_>, rule: u64, what: String) -> Unsupported {
    Unsupported { at: directive.at.clone(), rule: Some(rule), what }
}

/// What the engine says of a mistake, without the place that it thinks it is at.
fn said(error: &Error) -> String {
    match error {
        Error::Parse { message, .. } => message.clone(),
        error => error.to_string(),
    }
}

/// The list of actions of a rule or of a `SecAction`.
fn action_list<'a>(directive: &'a Directive<'_>) -> &'a str {
    let number = if directive.is("SecAction") { 0 } else { 2 };
    directive.arguments.get(number).map(String::as_str).unwrap_or_default()
}

fn is_chained(rule: &Directive<'_>) -> bool {
    actions::value(&actions::written(action_list(rule)), "chain").is_some()
}

fn is_on(directive: &Directive<'_>) -> Result<bool, Malformed> {
    match directive.arguments.first().map(|value| value.to_ascii_lowercase()).as_deref() {
        Some("on") => Ok(true),
        Some("off") => Ok(false),
        _ => Err(directive.malformed(format!("{} is On or Off", directive.name))),
    }
}

/// The entries of a data file.
fn entries_of<'a>(data: &Part<'a>) -> impl Iterator<Item = &'a str> {
    data.text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The rules that are left out.
struct Removed(Vec<RangeInclusive<u64>>);

impl Removed {
    fn of(all: &[Directive<'_>]) -> Result<Removed, Malformed> {
        let mut removed = Vec::new();
        for directive in all.iter().filter(|directive| directive.is("SecRuleRemoveById")) {
            for word in directive.arguments.iter().flat_map(|argument| argument.split_whitespace()) {
                let (from, to) = word.split_once('-').unwrap_or((word, word));
                match (from.parse(), to.parse()) {
                    (Ok(from), Ok(to)) => removed.push(from..=to),
                    _ => return Err(directive.malformed(format!("{word:?} is no id of a rule, nor a range of ids"))),
                }
            }
        }
        Ok(Removed(removed))
    }

    fn has(&self, id: u64) -> bool {
        self.0.iter().any(|range| range.contains(&id))
    }
}

/// The actions of a directive, with the defaults that the engine has merged into them.
fn actions_of(directive: &parser::Directive) -> &[Action] {
    match directive {
        parser::Directive::SecRule(rule) => &rule.actions,
        parser::Directive::SecAction(action) => &action.actions,
        _ => &[],
    }
}

/// What is to be known of a chain when its first rule is named.
fn about(chain: &[parser::Directive]) -> About {
    // What is worth a word without a severity is a notice.
    let mut about = About { severity: 5, ..About::default() };
    let first = chain.first().map(actions_of).unwrap_or_default();
    for action in first {
        match action {
            Action::Metadata(MetadataAction::Msg(message)) => about.message.clone_from(message),
            Action::Metadata(MetadataAction::Severity(severity)) => about.severity = *severity,
            Action::Disruptive(action) => {
                use DisruptiveAction::{Block, Deny, Drop, Redirect};
                about.disrupts = matches!(action, Deny | Block | Drop | Redirect(_));
            }
            Action::Logging(LoggingAction::Log) => about.logs = true,
            Action::Logging(LoggingAction::NoLog) => about.logs = false,
            _ => {}
        }
    }
    about.scores = chain.iter().flat_map(actions_of).any(|action| match action {
        Action::Data(DataAction::SetVar(set)) => match &set.value {
            SetVarValue::Increment(_) => true,
            SetVarValue::Macro(value) => value.starts_with('+'),
            _ => false,
        },
        _ => false,
    });
    if let Some(parser::Directive::SecRule(rule)) = chain.first() {
        about.sums_up = rule.variables.iter().all(|variable| variable.name == VariableName::Tx);
    }
    let id = |directive: &parser::Directive| {
        actions_of(directive).iter().find_map(|action| match action {
            Action::Metadata(MetadataAction::Id(id)) => Some(id.to_string()),
            _ => None,
        })
    };
    about.links = chain.iter().skip(1).map(id).collect();
    about
}

/// Takes out what a rule wants kept from one request to the next: the engine would take it for variables of this one.
fn forget(directive: &mut parser::Directive, found: &mut Found) {
    let actions = match directive {
        parser::Directive::SecRule(rule) => &mut rule.actions,
        parser::Directive::SecAction(action) => &mut action.actions,
        _ => return,
    };
    let before = actions.len();
    actions.retain(|action| match action {
        Action::Data(DataAction::SetVar(set)) => set.collection == "tx",
        Action::Data(DataAction::InitCol { .. } | DataAction::ExpireVar { .. }) => false,
        _ => true,
    });
    if actions.len() < before {
        found.weaker.push("the engine remembers nothing from one request to the next".to_owned());
    }
}

/// Has the first rule of a chain do what the last one is to do: the engine executes the first one's actions when all have matched,
/// and nobody else's. What skips goes behind what chains, or the engine would not skip.
fn move_actions(chain: &mut [parser::Directive]) {
    let moved: Vec<Action> = match chain {
        [_, .., parser::Directive::SecRule(last)] => {
            let is_moved = |action: &Action| matches!(action, Action::Data(DataAction::SetVar(_)) | Action::Control(_));
            last.actions.iter().filter(|action| is_moved(action)).cloned().collect()
        }
        _ => Vec::new(),
    };
    if let Some(parser::Directive::SecRule(first)) = chain.first_mut() {
        first.actions.extend(moved);
        first.actions.retain(|action| !matches!(action, Action::Flow(FlowAction::MultiMatch)));
        first
            .actions
            .sort_by_key(|action| matches!(action, Action::Flow(FlowAction::Skip(_) | FlowAction::SkipAfter(_))));
    }
}

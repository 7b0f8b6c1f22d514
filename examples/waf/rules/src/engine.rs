//! Runs the detectors over a request and makes a decision of what they found.

use waf_interface::{IF_UNREAD, Request};

use crate::catalogue::{CATALOGUE, Family, Rule};
use crate::config::{Config, ConfigError, FamilyConfig, Limits, Where};
use crate::dynamic::Dynamic;
use crate::parts::{self, Part, Place};
use crate::verdict::{Action, Decision, Reason, Verdict};
use crate::view::{Hits, View};
use crate::work::Work;
use crate::{agents, decode, files, shell, sql, windows, xss};

/// The rules with the settings of a rule file, ready to inspect requests.
#[derive(Debug)]
pub struct Rules {
    families: [FamilyConfig; Family::ALL.len()],
    rules: Vec<Setting>,
    dynamic: Dynamic,
    limits: Limits,
}

/// What it takes, in steps, to find the parts of a request, per byte; to look at a part at all; and at each of its bytes: to
/// decode it, and to read it as everything that it could be.
const PARSING: usize = 4;
const PART: usize = 300;
const DECODING: usize = 8;
const READING: usize = 64;
const READING_WORD: usize = 16;
const READING_FILE: usize = 16;
/// What it takes besides where something may begin.
const MARK: usize = 40;

/// What a built-in rule does when it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Score,
    Act(Action),
    Off,
}

impl Default for Rules {
    /// All built-in rules, none of the dynamic ones. Builds nothing, so that a fresh instance is ready at once.
    fn default() -> Rules {
        Rules {
            families: Family::ALL.map(|_| FamilyConfig::default()),
            rules: vec![Setting::Score; CATALOGUE.len()],
            dynamic: Dynamic::default(),
            limits: Limits::default(),
        }
    }
}

impl Rules {
    /// The rules as a rule file wants them.
    ///
    /// # Errors
    /// [`ConfigError`] names the rule whose pattern cannot be used.
    pub fn new(config: &Config) -> Result<Rules, ConfigError> {
        let mut waf =
            Rules { limits: config.limits.clone(), dynamic: Dynamic::new(&config.dynamic)?, ..Rules::default() };
        for (family, settings) in &config.families {
            if let Some(known) = waf.families.get_mut(*family as usize) {
                known.clone_from(settings);
            }
        }
        for (id, settings) in &config.rules {
            let rule = Rule::by_id(id).ok_or_else(|| ConfigError::UnknownRule { rule: id.clone() })?;
            let setting = match (settings.enabled, settings.action) {
                (false, _) => Setting::Off,
                (true, Some(action)) => Setting::Act(action),
                (true, None) => Setting::Score,
            };
            if let Some(known) = waf.rules.get_mut(rule as usize) {
                *known = setting;
            }
        }
        Ok(waf)
    }

    /// What the rules say of a request.
    pub fn inspect(&self, request: &Request<'_>) -> Decision {
        self.measure(request).0
    }

    /// The same, with the steps of work that it took.
    pub fn measure(&self, request: &Request<'_>) -> (Decision, u64) {
        let work = Work::new(self.limits.work);
        let unread = if_unread(request);
        let mut case =
            Case { waf: self, work: &work, unread, decision: Decision::allow(), score: 0, hits: Hits::default() };
        let mut left = self.limits.clone();
        let headers: usize = request.headers().map(|(name, value)| name.len() + value.len()).sum();
        work.spend((request.target.len() + headers + request.body.len()) * PARSING);
        case.whole(request);
        let headers_are_matched = self.dynamic.looks_at(Where::Headers);
        let complete = parts::each(request, &mut |part| {
            // Nobody looks at it, so it takes nothing away from what is looked at.
            if part.place == Place::Host && !headers_are_matched {
                return true;
            }
            let length = part.name.len() + part.text.len();
            if left.parameters == 0 || length > left.bytes || work.is_spent() {
                return false;
            }
            left.parameters -= 1;
            left.bytes -= length;
            case.part(&part);
            true
        });
        if work.is_spent() {
            case.unread(Rule::TooDear, "work");
        } else if !complete {
            case.unread(Rule::TooMuch, "limits");
        }
        (case.decision, work.done())
    }
}

impl Decision {
    fn allow() -> Decision {
        Decision { verdict: Verdict::Allow, reason: None, families: Vec::new() }
    }
}

/// Whether a value is a plain word or number, as most are: no grammar makes anything of it.
fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// What the host says is to happen to what cannot be inspected. What the rule file says of the family goes first.
fn if_unread(request: &Request<'_>) -> Verdict {
    let said = request.headers().find(|(name, _)| *name == IF_UNREAD.as_bytes()).map(|(_, value)| value);
    let known = Verdict::ALL.into_iter().find(|verdict| said == Some(verdict.name().as_bytes()));
    known.unwrap_or(Verdict::Block)
}

/// A request while it is being looked at.
struct Case<'w> {
    waf: &'w Rules,
    work: &'w Work,
    unread: Verdict,
    decision: Decision,
    /// The score behind the decision so far: of two reasons for one verdict the stronger is told.
    score: u32,
    hits: Hits,
}

impl Case<'_> {
    /// The dynamic rules that look at the request as a whole.
    fn whole(&mut self, request: &Request<'_>) {
        let waf = self.waf;
        for (place, label, bytes) in [(Where::Target, "target", request.target), (Where::Body, "body", request.body)] {
            if waf.dynamic.looks_at(place) {
                let bytes = bytes.get(..waf.limits.bytes).unwrap_or(bytes);
                if !self.work.spend(bytes.len() * DECODING) {
                    return;
                }
                self.custom(place, label, &decode::deeply(&decode::text(&decode::form(bytes))));
            }
        }
    }

    /// Something that is not looked at.
    fn unread(&mut self, rule: Rule, what: &str) {
        self.hits.add(rule, what);
        self.judge(&Part { place: Place::Unread, name: what.to_owned(), text: String::new() });
    }

    fn part(&mut self, part: &Part) {
        if part.place == Place::Unread {
            self.hits.add(Rule::Unread, &part.text);
            return self.judge(part);
        }
        if !self.work.spend(PART + (part.name.len() + part.text.len()) * DECODING) {
            return;
        }
        let deep = decode::deeply(&part.text);
        self.custom_part(part, &deep);
        if part.place == Place::Host {
            return;
        }
        if part.text != deep {
            self.detect(part, &part.text);
        }
        self.detect(part, &deep);
        self.judge(part);
    }

    fn detect(&mut self, part: &Part, text: &str) {
        let word = is_name(text);
        let reading = match part.place {
            Place::File => READING_FILE,
            _ if word => READING_WORD,
            _ => READING,
        };
        let marks = text.bytes().filter(|byte| !byte.is_ascii_alphanumeric() && *byte != b' ').count();
        if !self.work.spend(text.len() * reading + marks * MARK) {
            return;
        }
        let lower = text.to_ascii_lowercase();
        let view = View { place: part.place, name: &part.name, text, lower: &lower, work: self.work };
        let hits = &mut self.hits;
        match part.place {
            Place::File => return files::upload(&view, hits),
            Place::FileName => files::upload_name(&view, hits),
            Place::UserAgent => agents::user_agent(&view, hits),
            Place::Header => agents::header(&view, hits),
            Place::Path => agents::path(&view, hits),
            _ => {}
        }
        sql::values(&view, hits);
        if word {
            if part.place == Place::Arg {
                shell::inspect(&view, hits);
                windows::inspect(&view, hits);
            }
            return;
        }
        files::inspect(&view, hits);
        sql::inspect(&view, hits);
        xss::inspect(&view, hits);
        shell::inspect(&view, hits);
        windows::inspect(&view, hits);
    }

    fn custom_part(&mut self, part: &Part, text: &str) {
        match part.place {
            Place::Arg | Place::ArgName | Place::Cookie => self.custom(Where::Args, &part.label(), text),
            Place::Header | Place::UserAgent | Place::FileName | Place::Host => {
                if self.waf.dynamic.looks_at(Where::Headers) {
                    self.custom(Where::Headers, &part.label(), &format!("{}: {text}", part.name));
                }
                if part.place == Place::UserAgent {
                    self.custom(Where::UserAgent, &part.label(), text);
                }
            }
            Place::Path | Place::Body | Place::File | Place::Unread => {}
        }
    }

    fn custom(&mut self, place: Where, label: &str, text: &str) {
        let waf = self.waf;
        waf.dynamic.each(place, text, self.work, |rule, matched| {
            self.decide(rule.action.into(), &rule.id, || label.to_owned(), matched, 0);
        });
    }

    /// Adds up what was found in a part and lets each family act on it.
    fn judge(&mut self, part: &Part) {
        let hits = std::mem::take(&mut self.hits);
        for family in Family::ALL {
            let Some(settings) = self.waf.families.get(family as usize).filter(|settings| settings.enabled) else {
                continue;
            };
            let mut score = 0;
            let mut strongest: Option<(Rule, &str)> = None;
            for (rule, matched) in hits.iter().filter(|(rule, _)| rule.entry().family == family) {
                match self.waf.rules.get(rule as usize).copied().unwrap_or(Setting::Score) {
                    Setting::Off => {}
                    Setting::Act(action) => {
                        self.family(family, action.into());
                        self.decide(action.into(), rule.entry().id, || part.label(), matched, 0);
                    }
                    Setting::Score => {
                        score += rule.entry().score;
                        if strongest.is_none_or(|(other, _)| other.entry().score < rule.entry().score) {
                            strongest = Some((rule, matched));
                        }
                    }
                }
            }
            let verdict = if score >= settings.threshold {
                match settings.action {
                    Some(action) => action.into(),
                    None if family == Family::Limits => self.unread,
                    None => Verdict::Block,
                }
            } else if score >= settings.log_threshold {
                Verdict::Log
            } else {
                continue;
            };
            if let Some((rule, matched)) = strongest {
                self.family(family, verdict);
                self.decide(verdict, rule.entry().id, || part.label(), matched, score);
            }
        }
        self.hits = hits;
        self.hits.clear();
    }

    fn family(&mut self, family: Family, verdict: Verdict) {
        match self.decision.families.iter_mut().find(|(known, _)| *known == family) {
            Some((_, strongest)) => *strongest = verdict.max(*strongest),
            None => self.decision.families.push((family, verdict)),
        }
    }

    fn decide(&mut self, verdict: Verdict, rule: &str, part: impl FnOnce() -> String, matched: &str, score: u32) {
        if (verdict, score) <= (self.decision.verdict, self.score) {
            return;
        }
        let short = |text: &str| text.chars().take(Reason::LONGEST_MATCH).collect();
        self.score = score;
        self.decision.verdict = verdict;
        self.decision.reason =
            Some(Reason { rule: rule.to_owned(), part: short(&part()), matched: short(matched), score });
    }
}

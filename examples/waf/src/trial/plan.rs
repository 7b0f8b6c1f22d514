//! How a version is to be tried: what a request asks for, and what the configuration says where it does not.

use std::time::Duration;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use super::Sticky;
use crate::config::Seconds;

/// What the configuration says of trials.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Terms {
    /// The shares of the clients that a canary is served to, one after another.
    #[serde(deserialize_with = "shares")]
    pub steps: Vec<f64>,
    /// How long a step takes at least.
    #[serde(rename = "step_seconds")]
    pub step: Seconds,
    /// So many requests a step has to see, too.
    pub min_calls_per_step: u64,
    /// What tells clients apart.
    pub sticky: Sticky,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms {
            steps: vec![0.05, 0.25, 0.5, 1.0],
            step: Seconds::whole(60),
            min_calls_per_step: 100,
            sticky: Sticky::Client,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The version is asked about requests that the serving one has judged, and nobody is told what it says.
    Shadow,
    /// The version judges the requests of a share of the clients.
    Canary,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Shadow => "shadow",
            Mode::Canary => "canary",
        }
    }
}

/// A share of the clients, and for how long at least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub share: f64,
    pub time: Duration,
}

/// How a version is tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub mode: Mode,
    /// For a shadow, only one.
    pub steps: Vec<Step>,
    /// Whether the steps and the promotion follow by themselves.
    pub auto: bool,
    /// How many requests a step has to see.
    pub min_calls: u64,
    /// Whether a request that only the tried version refuses counts as one on which it failed.
    pub refusals_count: bool,
}

impl Plan {
    pub fn first_share(&self) -> f64 {
        self.steps.first().map_or(0.0, |step| step.share)
    }
}

/// What a request asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wish {
    /// The module: it is read with the rest, and used elsewhere.
    pub module: Option<String>,
    mode: Option<String>,
    share: Option<String>,
    steps: Option<String>,
    auto: Option<String>,
    min_calls: Option<String>,
    refusals: Option<String>,
}

/// The names of what can be asked for.
pub const FIELDS: [&str; 6] = ["mode", "share", "steps", "auto", "min_calls", "refusals"];

impl Wish {
    /// Adds a field of a form. Gives the problem if it is there twice.
    pub fn add(&mut self, name: &str, value: String) -> Result<(), String> {
        let field = match name {
            "mode" => &mut self.mode,
            "share" => &mut self.share,
            "steps" => &mut self.steps,
            "auto" => &mut self.auto,
            "min_calls" => &mut self.min_calls,
            "refusals" => &mut self.refusals,
            _ => return Err(format!("there is no field {name}")),
        };
        match field.replace(value) {
            None => Ok(()),
            Some(_) => Err(format!("the field {name} is there twice")),
        }
    }

    /// Adds what was asked for in the address. Gives the problem if both say something.
    pub fn and(mut self, other: Wish) -> Result<Wish, String> {
        let fields = [other.mode, other.share, other.steps, other.auto, other.min_calls, other.refusals];
        for (name, value) in FIELDS.into_iter().zip(fields) {
            value.map_or(Ok(()), |value| self.add(name, value))?;
        }
        Ok(self)
    }

    /// Returns how the version is to be tried; `None` if it is to serve at once.
    pub fn plan(&self, terms: &Terms) -> Result<Option<Plan>, String> {
        let Wish { mode, share, steps, auto, min_calls, refusals, .. } = self;
        let mode = match mode.as_deref() {
            Some("shadow") => Mode::Shadow,
            Some("canary") => Mode::Canary,
            Some(other) => return Err(format!("there is no mode {other:?}: it is shadow or canary")),
            None if [share, steps, auto, min_calls, refusals].iter().any(|field| field.is_some()) => {
                return Err(
                    "share, steps, auto, min_calls and refusals are for a trial: say mode=shadow or mode=canary"
                        .to_owned(),
                );
            }
            None => return Ok(None),
        };
        if mode == Mode::Shadow && [steps, auto, min_calls, refusals].iter().any(|field| field.is_some()) {
            return Err("a shadow has a share, and nothing else: steps, auto, min_calls and refusals are for a canary"
                .to_owned());
        }
        if share.is_some() && steps.is_some() {
            return Err("a canary has one share, or steps: take one of them out".to_owned());
        }
        let usual = terms.step.0;
        let steps = match (share, steps, mode) {
            (Some(share), ..) => vec![Step { share: read_share(share)?, time: usual }],
            (_, Some(steps), _) => steps.split(',').map(|step| read_step(step, usual)).collect::<Result<_, _>>()?,
            (None, None, Mode::Shadow) => vec![Step { share: 1.0, time: usual }],
            (None, None, Mode::Canary) => terms.steps.iter().map(|share| Step { share: *share, time: usual }).collect(),
        };
        if !steps.is_sorted_by(|one, next| one.share < next.share) {
            return Err("each step is a larger share than the one before".to_owned());
        }
        // Whoever says one share wants to look at it.
        let auto = auto.as_deref().map_or(Ok(share.is_none()), |text| read_choice("auto", text, "true", "false"))?;
        let min_calls = match min_calls {
            Some(text) => text.trim().parse().map_err(|_| format!("min_calls = {text:?} is no number of requests"))?,
            None => terms.min_calls_per_step,
        };
        let refusals = refusals.as_deref().unwrap_or("count");
        let refusals_count = read_choice("refusals", refusals, "count", "ignore")?;
        Ok(Some(Plan { mode, steps, auto: auto && mode == Mode::Canary, min_calls, refusals_count }))
    }
}

fn read_choice(name: &str, text: &str, yes: &str, no: &str) -> Result<bool, String> {
    match text.trim() {
        text if text == yes => Ok(true),
        text if text == no => Ok(false),
        other => Err(format!("{name} is {yes} or {no}, and not {other:?}")),
    }
}

/// A share as people write it: `0.05`, or `5%`.
pub fn read_share(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    share.ok().filter(|share| is_share(*share)).ok_or_else(|| format!("{text:?} is no share: write 0.05, or 5%"))
}

/// Nobody is no share: then there is nothing to see.
pub fn is_share(share: f64) -> bool {
    share > 0.0 && share <= 1.0
}

/// A share, and the seconds that it takes: `5%:60`.
fn read_step(text: &str, usual: Duration) -> Result<Step, String> {
    const MOST: f64 = 30.0 * 24.0 * 3600.0;
    let (share, time) = text.split_once(':').map_or((text, None), |(share, time)| (share, Some(time)));
    let time = match time {
        None => usual,
        Some(time) => {
            let seconds = time.trim().trim_end_matches('s').parse::<f64>().ok();
            let seconds = seconds.filter(|seconds| (0.0..=MOST).contains(seconds));
            Duration::from_secs_f64(seconds.ok_or_else(|| format!("{time:?} is no number of seconds up to 30 days"))?)
        }
    };
    Ok(Step { share: read_share(share)?, time })
}

fn shares<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let steps = Vec::<f64>::deserialize(deserializer)?;
    let are_shares = !steps.is_empty() && steps.iter().all(|share| is_share(*share));
    if !are_shares || !steps.is_sorted_by(|one, next| one < next) {
        return Err(D::Error::custom("steps are shares above 0 and up to 1, each larger than the one before"));
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(query: &str) -> Result<Option<Plan>, String> {
        let mut wish = Wish::default();
        for (name, value) in query.split('&').filter_map(|field| field.split_once('=')) {
            wish.add(name, value.to_owned())?;
        }
        wish.plan(&Terms::default())
    }

    fn steps(query: &str) -> Vec<(f64, u64)> {
        let plan = plan(query).unwrap().unwrap();
        plan.steps.iter().map(|step| (step.share, step.time.as_secs())).collect()
    }

    #[test]
    fn what_is_not_said_is_as_configured() {
        assert_eq!(plan(""), Ok(None));
        assert_eq!(steps("mode=canary"), [(0.05, 60), (0.25, 60), (0.5, 60), (1.0, 60)]);
        assert_eq!(steps("mode=canary&steps=5%:10,0.5:20s,1"), [(0.05, 10), (0.5, 20), (1.0, 60)]);
        assert_eq!(steps("mode=shadow"), [(1.0, 60)]);
        let is_auto = |query| plan(query).unwrap().unwrap().auto;
        assert!(is_auto("mode=canary") && is_auto("mode=canary&share=5%&auto=true"));
        assert!(!is_auto("mode=canary&share=5%") && !is_auto("mode=canary&auto=false") && !is_auto("mode=shadow"));
        assert!(!plan("mode=canary&refusals=ignore").unwrap().unwrap().refusals_count);
    }

    #[test]
    fn what_makes_no_plan_is_said() {
        for wrong in [
            "share=0.5",
            "mode=now",
            "mode=shadow&steps=1",
            "mode=shadow&auto=true",
            "mode=canary&share=0",
            "mode=canary&share=NaN",
            "mode=canary&share=101%",
            "mode=canary&share=0.1&steps=0.1",
            "mode=canary&steps=0.5,0.1",
            "mode=canary&steps=0.5:x",
            "mode=canary&auto=yes",
            "mode=canary&min_calls=-1",
            "mode=canary&refusals=no",
            "mode=canary&mode=shadow",
        ] {
            assert!(plan(wrong).is_err(), "{wrong}");
        }
    }
}

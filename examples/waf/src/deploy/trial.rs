//! Begins and ends [trials](crate::trial): a version is staged as for a reload, and what comes of it is recorded as for one.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::{Deployments, PATIENCE, Record, Refusal, Trigger, with_versions};
use crate::chain::Named;
use crate::hold::Held;
use crate::release::Release;
use crate::trial::{About, Mode, Outcome, Plan, Trial, Tried, Turn};
use crate::version::shown;

/// What came of the wish to try a version.
pub enum Begun {
    Trial(Arc<Trial>),
    /// It serves already, so there is nothing to try.
    Unchanged(Box<Record>),
}

impl Deployments {
    /// Loads and proves a release, and begins to try it.
    pub fn begin_trial(
        self: &Arc<Deployments>,
        release: Release,
        plan: Plan,
        trigger: Trigger,
    ) -> Result<Begun, Refusal> {
        if !self.enabled {
            return Err(Refusal::Disabled);
        }
        let _turn = self.turn.lock();
        self.refuse_during_trial()?;
        self.follow();
        let base = self.served.lock().generation;
        self.expect(&release);
        let began = Instant::now();
        let result = self.try_to_begin(&release, base, plan, trigger, began);
        let result = result.map_err(|refusal| with_versions(refusal, &release));
        self.follow();
        match result {
            Ok(Begun::Trial(trial)) => {
                self.look_after(&trial);
                Ok(Begun::Trial(trial))
            }
            Ok(unchanged) => {
                self.guard.metrics().reloaded(began.elapsed(), true);
                Ok(unchanged)
            }
            Err(refusal) => {
                self.guard.metrics().reloaded(began.elapsed(), false);
                self.history.refused(&refusal, &release, Held::default());
                Err(refusal)
            }
        }
    }

    fn try_to_begin(
        &self,
        release: &Release,
        base: u64,
        plan: Plan,
        trigger: Trigger,
        began: Instant,
    ) -> Result<Begun, Refusal> {
        // Where nobody can be asked whether the serving version refuses a request, too, a refusal says nothing.
        let plan = Plan { refusals_count: plan.refusals_count && self.engine.takes_second_opinions(), ..plan };
        let reason = match plan.mode {
            Mode::Shadow => "tried in the shadow of the serving version",
            Mode::Canary => "tried as a canary",
        };
        let ready = self.stage(release, base, trigger, Some(reason.to_owned()))?;
        if ready.staged.is_unchanged() {
            let (report, _) = self.commit(ready)?;
            return Ok(Begun::Unchanged(Box::new(self.history.succeeded(&report, Held::default()))));
        }
        let version = ready.staged.manifest().and_then(|manifest| manifest.version.as_ref()).map(ToString::to_string);
        let serving = self.guard.slot().status().serving.filter(|serving| serving.generation == base);
        let serving = serving.ok_or(Refusal::Overtaken)?;
        // A canary serves some; a shadow is remembered when it is promoted.
        if plan.mode == Mode::Canary {
            self.accept(release)?;
        }
        let tried = Tried::begin(self.guard.slot(), ready.staged, &plan).map_err(Refusal::Slot)?;
        let about = About {
            module: self.guard.shared_name(),
            release: release.clone(),
            version,
            generation: tried.generation(),
            base,
            base_version: serving.version.map(|version| version.to_string()),
            base_digest: serving.digest,
            base_rules: serving.config_digest,
            started: SystemTime::now(),
            staging: began.elapsed(),
        };
        // A canary decides for clients, so it has exceptions of its own; what a shadow says is compared without any.
        let mild = (plan.mode == Mode::Canary).then(|| self.open_mild(release).0).flatten();
        let trial = Arc::new(Trial::new(about, plan, tried, mild));
        tracing::info!(
            module = self.name(),
            mode = trial.plan().mode.name(),
            version = trial.about().version,
            "a trial begins"
        );
        self.guard.set_trial(Arc::clone(&trial));
        Ok(Begun::Trial(trial))
    }

    /// Refuses what would change what serves under a trial.
    pub(super) fn refuse_during_trial(&self) -> Result<(), Refusal> {
        match self.trial_under_way() {
            Ok(trial) => {
                let About { version, generation, release, .. } = trial.about();
                Err(Refusal::TrialUnderWay {
                    mode: trial.plan().mode,
                    version: version.clone(),
                    generation: *generation,
                    module: release.module.digest(),
                    rules: release.rules.digest(),
                })
            }
            Err(_) => Ok(()),
        }
    }

    /// Returns the trial that is under way, or was the last one.
    pub fn trial(&self) -> Option<Arc<Trial>> {
        self.guard.last_trial()
    }

    /// Returns the trial that is under way.
    pub fn trial_under_way(&self) -> Result<Arc<Trial>, Refusal> {
        self.trial().filter(|trial| trial.is_under_way()).ok_or(Refusal::NoTrial)
    }

    /// Serves a canary to another share of the clients, and leaves it there until somebody lets it go on.
    pub fn set_trial_share(&self, share: f64) -> Result<Arc<Trial>, Refusal> {
        let trial = self.trial_under_way()?;
        trial.set_share(share).map_err(Refusal::Trial)?;
        trial.progress().pause(true);
        Ok(trial)
    }

    /// Holds the trial where it is, or lets it go on.
    pub fn pause_trial(&self, is_paused: bool) -> Result<Arc<Trial>, Refusal> {
        let trial = self.trial_under_way()?;
        trial.progress().pause(is_paused);
        Ok(trial)
    }

    /// Makes what is tried serve everybody.
    pub fn promote_trial(&self, why: &str) -> Result<Record, Refusal> {
        let trial = self.trial_under_way()?;
        self.promote(&trial, why)
    }

    fn promote(&self, trial: &Arc<Trial>, why: &str) -> Result<Record, Refusal> {
        let tried = trial.take().ok_or(Refusal::NoTrial)?;
        let release = &trial.about().release;
        self.expect(release);
        let (began, window) = (Instant::now(), self.guard.holds().open());
        let result = {
            let mut last = self.change.lock();
            self.follow_from(&mut last);
            let is_overtaken = self.served.lock().generation != trial.about().base;
            let may_serve = match trial.plan().mode {
                _ if is_overtaken => Err(Refusal::Overtaken),
                Mode::Shadow => self.accept(release),
                Mode::Canary => Ok(()),
            };
            let result = match may_serve {
                Ok(()) => {
                    self.guard.take_tally();
                    tried.promote().map_err(Refusal::Slot)
                }
                Err(refusal) => {
                    drop(tried);
                    Err(refusal)
                }
            };
            self.follow_from(&mut last);
            result
        };
        let held = window.close(PATIENCE);
        self.guard.metrics().reloaded(trial.about().staging + began.elapsed(), result.is_ok());
        match result {
            Ok(report) => {
                let record = self.history.succeeded(&report, held);
                self.end(trial, Outcome::Promoted, why.to_owned());
                Ok(record)
            }
            Err(refusal) => {
                self.history.refused(&refusal, release, held);
                self.end(trial, Outcome::Stopped, refusal.to_string());
                Err(refusal)
            }
        }
    }

    /// Ends the trial: the version that serves goes on to.
    pub fn abort_trial(&self, why: &str) -> Result<Arc<Trial>, Refusal> {
        let trial = self.trial_under_way()?;
        self.give_up(&trial, Outcome::Aborted, why)?;
        Ok(trial)
    }

    /// Ends the trial, if there is one, so that the history says what became of it.
    pub fn end_trial_at_stop(&self) {
        if let Ok(trial) = self.trial_under_way() {
            // It may end by itself at this moment.
            let _ended = self.give_up(&trial, Outcome::Aborted, "the node stops");
        }
    }

    fn give_up(&self, trial: &Arc<Trial>, outcome: Outcome, why: &str) -> Result<(), Refusal> {
        // From here on nobody gets it.
        drop(trial.take().ok_or(Refusal::NoTrial)?);
        self.follow();
        self.guard.metrics().reloaded(trial.about().staging, false);
        let refusal = Refusal::TrialEnded { mode: trial.plan().mode, reason: why.to_owned() };
        self.history.refused(&refusal, &trial.about().release, Held::default());
        self.end(trial, outcome, why.to_owned());
        Ok(())
    }

    /// Writes down how a trial ended, and takes up what had to wait for that.
    fn end(&self, trial: &Arc<Trial>, outcome: Outcome, why: String) {
        let (module, mode, what) = (self.name(), trial.plan().mode.name(), outcome.name());
        self.guard.metrics().trial_ended(mode, what);
        let version = trial.about().version.as_deref().map(shown);
        let numbers = trial.measured();
        let (calls, failures, differences) = (numbers.calls, numbers.failures, numbers.differences);
        let reason = hotslot::escape_untrusted(&why).into_owned();
        match outcome {
            Outcome::Stopped => {
                tracing::error!(
                    module,
                    mode,
                    version,
                    calls,
                    failures,
                    differences,
                    reason,
                    "ALARM: a trial was stopped"
                );
            }
            _ => tracing::info!(module, mode, version, calls, failures, differences, reason, "a trial was {what}"),
        }
        trial.end(outcome, why);
        self.guard.clear_trial();
    }

    /// Has a thread take the steps, and end the trial when that is due.
    fn look_after(self: &Arc<Deployments>, trial: &Arc<Trial>) {
        let (this, theirs) = (Arc::clone(self), Arc::clone(trial));
        let body = move || {
            while this.look_at(&theirs) {
                theirs.progress().wait();
            }
            this.take_up_missed_files();
        };
        if let Err(error) = std::thread::Builder::new().name("trial".to_owned()).spawn(body) {
            let why = format!("there is no thread to look after it: {error}");
            // Somebody may have been faster.
            let _ended = self.give_up(trial, Outcome::Stopped, &why);
        }
    }

    /// Does what is due. Returns whether the trial goes on.
    fn look_at(&self, trial: &Arc<Trial>) -> bool {
        if !trial.is_under_way() {
            return false;
        }
        let serving = self.guard.slot().status().serving.map(|serving| serving.generation);
        let stopped = match trial.objection() {
            Some(objection) => Some(objection),
            None if serving != Some(trial.about().base) => Some("another version began to serve meanwhile".to_owned()),
            None => None,
        };
        // Whoever ends it at the same moment has the last word.
        if let Some(why) = stopped {
            let _ended = self.give_up(trial, Outcome::Stopped, &why);
            return trial.is_under_way();
        }
        match trial.turn() {
            Turn::Wait => {}
            Turn::Step(share) => match trial.set_share(share) {
                Ok(()) => tracing::info!(module = self.name(), share, "the canary takes a step"),
                Err(error) => tracing::warn!(module = self.name(), share, %error, "the canary takes no step"),
            },
            Turn::Promote => {
                let _promoted = self.promote(trial, "it was through all steps");
            }
        }
        trial.is_under_way()
    }
}

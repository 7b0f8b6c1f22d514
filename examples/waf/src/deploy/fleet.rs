//! What a fleet has a node do: stage and commit as two steps, with whole releases.

use std::time::{Duration, Instant};

use hotslot::{BoxError, Error, ErrorKind, Phase, Report, RetiredStatus, Rollback};

use super::{Deployments, Ready, Record, Refusal, Trigger};
use crate::hold::Held;
use crate::release::Release;
use crate::trust::Untrusted;

/// How long the end of a change waits for requests that came across it. The fleet waits with it.
const PATIENCE: Duration = Duration::from_millis(100);

/// A change that has been made.
pub struct Made {
    pub at: Instant,
    pub downtime_ms: f64,
    pub requests: u64,
}

impl Deployments {
    /// Loads and proves a release, to be committed later.
    pub fn stage_release(&self, release: &Release) -> Result<Ready, Refusal> {
        let _turn = self.turn.lock();
        self.follow();
        let base = self.served.lock().generation;
        self.expect(release);
        let began = Instant::now();
        let staged = self.stage(release, base, Trigger::Fleet, None);
        self.follow();
        if let Err(refusal) = &staged {
            self.guard.metrics().reloaded(began.elapsed(), false);
            self.history.refused(refusal, release, Held::default());
        }
        staged
    }

    /// Makes a staged release serve.
    pub fn commit_release(&self, ready: Ready) -> Result<Made, Refusal> {
        let (began, window) = (Instant::now(), self.guard.holds().open());
        let committed = self.commit(ready);
        self.guard.metrics().reloaded(began.elapsed(), committed.is_ok());
        let (report, at) = committed?;
        let record = self.history.succeeded(&report, window.close(PATIENCE));
        Ok(made(at, &record))
    }

    /// Goes back to a release, exempt from the version rule and the least interval: at once if it is still loaded, also
    /// while another one is being staged.
    pub fn go_back_to(&self, release: &Release, reason: &str) -> Result<Made, Refusal> {
        self.may_return(release)?;
        let window = self.guard.holds().open();
        let report = match self.warm_generation(release) {
            Some(generation) => self.roll_back_for_fleet(Rollback::to(generation), reason),
            None => {
                let _turn = self.turn.lock();
                self.follow();
                self.expect(release);
                self.announce_return(release);
                self.archive.keep(release).map_err(Refusal::Archive)?;
                self.roll_back_for_fleet(Rollback::to_artifact(release.candidate()), reason)
            }
        };
        match report {
            Ok((report, at)) => Ok(made(at, &self.history.succeeded(&report, window.close(PATIENCE)))),
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyServing(_)) => {
                Ok(Made { at: Instant::now(), downtime_ms: 0.0, requests: 0 })
            }
            Err(error) => Err(Refusal::Slot(error)),
        }
    }

    fn roll_back_for_fleet(&self, rollback: Rollback, reason: &str) -> Result<(Report, Instant), Error> {
        let mut last = self.change.lock();
        self.guard.take_tally();
        let report = self.guard.slot().rollback_to(rollback.requested_by(Trigger::Fleet.name()).reason(reason));
        let at = Instant::now();
        self.follow_from(&mut last);
        report.map(|report| (report, at))
    }

    fn warm_generation(&self, release: &Release) -> Option<u64> {
        let retired = self.guard.slot().status().retired;
        let is_it = |retired: &&RetiredStatus| {
            retired.phase == Phase::Warm
                && retired.config_digest.is_some_and(|rules| release.is_of(retired.digest, rules))
        };
        retired.iter().find(is_it).map(|retired| retired.generation)
    }

    /// Returns what serves, with its generation and its version.
    pub fn what_serves(&self) -> (Release, u64, Option<String>) {
        let served = self.served.lock();
        (served.release.clone(), served.generation, served.version.clone())
    }

    /// Returns a release of the archive, if all of it is there and whole.
    pub fn archived_release(&self, module: &str, rules: &str) -> Result<Release, BoxError> {
        self.archive.release(module, rules)
    }

    /// Keeps a release in the archive that is to serve again, if it may.
    pub fn archive_release(&self, release: &Release) -> Result<(), Refusal> {
        // What is loaded was verified when it was.
        match self.warm_generation(release) {
            Some(_) => self.may_return(release)?,
            None => self.check_return(release)?,
        }
        self.archive.keep(release).map_err(Refusal::Archive)
    }
}

fn made(at: Instant, record: &Record) -> Made {
    Made {
        at,
        downtime_ms: record.downtime_ms.unwrap_or_default(),
        requests: record.requests_during_reload.unwrap_or_default(),
    }
}

impl Refusal {
    /// Returns whether the release is older than what serves, or has served, by its version or by its counter: it can be gone
    /// back to.
    pub fn is_too_old(&self) -> bool {
        match self {
            Refusal::Version { .. } => true,
            Refusal::Slot(error) if matches!(error.kind(), ErrorKind::Version(_)) => true,
            _ => self.untrusted().is_some_and(|error| error.reason() == "replayed"),
        }
    }

    /// Returns whether it may be otherwise later, with the same release.
    pub fn is_transient(&self) -> bool {
        match self {
            Refusal::Archive(_) | Refusal::NotArchived(_) | Refusal::Overtaken | Refusal::TrialUnderWay { .. } => true,
            Refusal::Disabled
            | Refusal::Rules(_)
            | Refusal::RulesChanged
            | Refusal::NothingBefore(_)
            | Refusal::NoTrial
            | Refusal::Trial(_)
            | Refusal::TrialEnded { .. }
            | Refusal::Version { .. } => false,
            Refusal::Untrusted(error) => error.is_transient(),
            Refusal::Slot(error) if self.untrusted().is_none() => matches!(
                error.kind(),
                ErrorKind::TooSoon { .. }
                    | ErrorKind::Busy
                    | ErrorKind::BaseChanged { .. }
                    | ErrorKind::TooManyRetired { .. }
                    | ErrorKind::NoThread(_)
            ),
            Refusal::Slot(_) => self.untrusted().is_some_and(Untrusted::is_transient),
        }
    }
}

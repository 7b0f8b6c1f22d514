//! Where a rollback goes, who asked for it, and why.

use std::sync::Arc;

use crate::Candidate;
use crate::artifact::Request;

/// A rollback: its target, and what is to be recorded with it.
///
/// ```no_run
/// # fn example(slot: &hotslot::HotSlot<str>, old: Vec<u8>) -> Result<(), hotslot::Error> {
/// use hotslot::{Candidate, Rollback};
///
/// slot.rollback_to(3)?; // a generation that is still warm
/// slot.rollback_to(Rollback::previous().requested_by("alice").reason("the new prices are off"))?;
/// slot.rollback_to(Candidate::new(old).reason("none is warm after the restart"))?; // from its bytes, warm or cold
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Rollback {
    pub(super) to: To,
    pub(super) request: Request,
}

#[derive(Clone, Debug)]
pub(super) enum To {
    Previous,
    Generation(u64),
    Artifact(Candidate),
}

impl Rollback {
    /// Goes to the generation that the current one replaced.
    pub fn previous() -> Rollback {
        Rollback { to: To::Previous, request: Request::default() }
    }

    /// Goes to a generation that is still warm.
    pub fn to(generation: u64) -> Rollback {
        Rollback { to: To::Generation(generation), request: Request::default() }
    }

    /// Goes to a plugin by its bytes and configuration: to the generation that is still warm, or else to a new one that is
    /// loaded from them.
    pub fn to_artifact(candidate: impl Into<Candidate>) -> Rollback {
        Rollback { to: To::Artifact(candidate.into()), request: Request::default() }
    }

    /// Says who or what asks for it. It goes into report, events and log.
    pub fn requested_by(mut self, who: impl Into<Arc<str>>) -> Rollback {
        self.request.requested_by = Some(who.into());
        self
    }

    /// Says why. It goes into report, events and log.
    pub fn reason(mut self, why: impl Into<Arc<str>>) -> Rollback {
        self.request.reason = Some(why.into());
        self
    }
}

impl From<u64> for Rollback {
    fn from(generation: u64) -> Rollback {
        Rollback::to(generation)
    }
}

impl From<Candidate> for Rollback {
    fn from(candidate: Candidate) -> Rollback {
        Rollback::to_artifact(candidate)
    }
}

//! Why a transition was refused: the stage, the reason, the source, and what still serves.

use std::fmt;
use std::time::Duration;

use semver::Version;

use crate::{BoxError, Digest, Stage};

/// A transition that did not happen. Whatever the reason, the generation that served before keeps serving.
///
/// `Debug` prints what `Display` and its sources say, so that a `main` that returns it shows a sentence; `{:#?}` prints its
/// parts.
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    stage: Stage,
    kind: ErrorKind,
    serving: Option<Serving>,
}

/// The generation that keeps serving after an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Serving {
    /// The number of the generation.
    pub generation: u64,
    /// Its version, if it has one.
    pub version: Option<Version>,
    /// The digest of its bytes.
    pub digest: Digest,
    /// The digest of the configuration that it came with.
    pub config_digest: Option<Digest>,
}

/// The reason of an [`Error`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The backend, or a hook, said no.
    #[error("{0}")]
    Refused(#[source] BoxError),
    /// It did not come back within the slot's `reload_timeout`.
    #[error(
        "no result within {0:?}: the work was abandoned, and its result will be destroyed; raise reload_timeout if \
         this plugin needs longer"
    )]
    TimedOut(Duration),
    /// Its turn did not come within the slot's `reload_timeout`.
    #[error("another transition was still in progress after {0:?}: try again when it has ended")]
    QueueTimedOut(Duration),
    /// The backend or a hook panicked on the host's side.
    #[error("a panic: {0}")]
    Panicked(String),
    /// The version rule does not allow this version.
    #[error("{0}")]
    Version(String),
    /// The artifact is larger than the slot takes.
    #[error("{size} bytes are more than the {limit} that this slot takes: raise max_artifact_size")]
    TooLarge {
        /// Size of the artifact in bytes.
        size: usize,
        /// The slot's limit in bytes.
        limit: usize,
    },
    /// Another transition is under way, and this slot does not queue.
    #[error("another transition is in progress: try again when it has ended, or build the slot with BusyPolicy::Queue")]
    Busy,
    /// The last swap was too short a time ago.
    #[error("the last swap was less than min_reload_interval ago: try again in {retry_after:?}")]
    TooSoon {
        /// When the slot will take the next reload.
        retry_after: Duration,
    },
    /// Too many old generations are still held, or loads still hang.
    #[error(
        "{lingering} old, staged or hung generations are still loaded, and the slot allows {limit}: status() says who holds \
         them"
    )]
    TooManyRetired {
        /// How many there are.
        lingering: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The hand-over was not over within the time for which
    /// [calls are held](crate::Builder::hold_calls_during_hand_over). They went on to the old plugin, which serves on.
    #[error("{}", hold_timed_out(*.bound, *.leases))]
    HoldTimedOut {
        /// For how long calls are held at most.
        bound: Duration,
        /// How many leases on the old plugin were still out; 0 if it was the hook that took longer.
        leases: usize,
    },
    /// Another generation became current meanwhile.
    #[error("{}", base_changed(*.base, *.current))]
    BaseChanged {
        /// The generation that was to be replaced.
        base: Option<u64>,
        /// The one that serves.
        current: u64,
    },
    /// Another staged generation is served to a share of the callers.
    #[error("generation {0} is already the canary: promote it or drop it first")]
    CanaryUnderWay(u64),
    /// The [probation policy](crate::ProbationPolicy) objected to the canary, and it is not served any more.
    #[error("the probation policy objected to the canary: {0}")]
    CanaryFailed(String),
    /// Another member of the [group](crate::SlotGroup) was refused, so that this one was not committed, either.
    #[error("no member of the group was changed, because its slot `{slot}` was refused: {reason}")]
    GroupRefused {
        /// The name of that member.
        slot: String,
        /// Why it was refused.
        reason: String,
    },
    /// There is nothing to roll back to.
    #[error("{}", nothing_to_roll_back_to(*.wanted, .warm))]
    NotWarm {
        /// The generation that was wanted; `None` if the serving one is the first.
        wanted: Option<u64>,
        /// The generations that are kept.
        warm: Vec<u64>,
    },
    /// The generation to roll back to serves already.
    #[error("generation {0} is already serving")]
    AlreadyServing(u64),
    /// The slot was closed.
    #[error("the slot was closed")]
    Closed,
    /// A later [`reload_soon`](crate::HotSlot::reload_soon) took its place before its turn came.
    #[error("superseded by a later reload_soon")]
    Superseded,
    /// This process was forked from the one in which the slot was opened: the threads that serve it are not here.
    #[error(
        "this process was forked from one that uses hotslot, and the threads of its slots are not here: open slots \
         after the fork, or exec"
    )]
    Forked,
    /// The system gave no thread to work on.
    #[error("could not spawn a thread: {0}")]
    NoThread(#[source] std::io::Error),
    /// The library was used in a way that cannot work: the program has to be changed.
    #[error("{0}")]
    Misuse(String),
}

fn base_changed(base: Option<u64>, current: u64) -> String {
    if base == Some(current) {
        return format!(
            "generation {current} was to be replaced, and has been replaced and brought back meanwhile: check what serves, \
             then stage again"
        );
    }
    let base = or_none(base);
    format!("generation {base} was to be replaced, but {current} is current now: check what serves, then stage again")
}

fn hold_timed_out(bound: Duration, leases: usize) -> String {
    let why = match leases {
        0 => "the hand-over took longer: raise the bound, or make it faster".to_owned(),
        1 => "one lease was still out: hold leases for a call, not longer, or raise the bound".to_owned(),
        more => format!("{more} leases were still out: hold leases for a call, not longer, or raise the bound"),
    };
    format!("calls are held for {bound:?} at most, and went on to the old plugin, because {why}")
}

fn or_none(generation: Option<u64>) -> String {
    generation.map_or_else(|| "none".to_owned(), |number| number.to_string())
}

fn nothing_to_roll_back_to(wanted: Option<u64>, warm: &[u64]) -> String {
    match (wanted, warm) {
        (None, []) => "there is no earlier generation to roll back to".to_owned(),
        (None, warm) => format!("no generation came before this one; rollback_to can reach {warm:?}"),
        (Some(wanted), []) => format!("generation {wanted} is no longer warm, and no other is: raise keep_previous"),
        (Some(wanted), warm) => {
            format!("generation {wanted} is no longer warm, only {warm:?} can be rolled back to: raise keep_previous")
        }
    }
}

impl Error {
    pub(crate) fn new(stage: Stage, kind: ErrorKind, serving: Option<Serving>) -> Error {
        Error(Box::new(Inner { stage, kind, serving }))
    }

    /// Returns the stage that refused.
    pub fn stage(&self) -> Stage {
        self.0.stage
    }

    /// Returns the reason.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Returns what keeps serving; `None` if nothing ever did, or the slot was closed.
    pub fn serving(&self) -> Option<&Serving> {
        self.0.serving.as_ref()
    }

    /// Returns whether the slot's `reload_timeout` was over, in the queue or afterwards.
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.kind, ErrorKind::TimedOut(_) | ErrorKind::QueueTimedOut(_))
    }

    /// Returns whether a later attempt may succeed with the same plugin and the same program.
    pub fn is_temporary(&self) -> bool {
        use ErrorKind::{BaseChanged, Busy, HoldTimedOut, NoThread, QueueTimedOut, TooManyRetired, TooSoon};
        matches!(
            self.0.kind,
            Busy | QueueTimedOut(_)
                | TooSoon { .. }
                | TooManyRetired { .. }
                | BaseChanged { .. }
                | HoldTimedOut { .. }
                | NoThread(_)
        )
    }

    /// Returns whether the calling program has to be changed.
    pub fn is_misuse(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Misuse(_))
    }

    /// The reason without stage and serving generation, for records that have those already.
    pub(crate) fn reason(&self) -> String {
        let mut reason = self.0.kind.to_string();
        // A refusal shows its source's text as its own: only what lies below is new.
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            reason = format!("{reason}: {error}");
            source = error.source();
        }
        reason
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            let Inner { stage, kind, serving } = &*self.0;
            let mut parts = f.debug_struct("Error");
            return parts.field("stage", stage).field("kind", kind).field("serving", serving).finish();
        }
        fmt::Display::fmt(self, f)?;
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            write!(f, "\n  caused by: {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused at {}: {}", self.0.stage, self.0.kind)?;
        match &self.0.serving {
            Some(serving) => write!(f, " (still serving: {serving})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}, ", self.generation)?;
        match &self.version {
            Some(version) => write!(f, "version {version}, "),
            None => Ok(()),
        }?;
        write!(f, "digest {}", self.digest.short())
    }
}

impl std::error::Error for Error {
    /// What lies below the reason: the reason's own text is part of this error's.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.kind {
            ErrorKind::Refused(source) => source.source(),
            ErrorKind::NoThread(source) => source.source(),
            _ => None,
        }
    }
}

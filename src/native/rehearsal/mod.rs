//! A rehearsal: the plugin is loaded in a child process first, so that a crash or an endless loop in its constructors
//! ends the child and not the host.
//!
//! The child first loads what is mapped already and shares something with the plugin: see [`shared`](super::shared).
//!
//! [`child`](crate::child) has how it is started. Its standard input is the artifact; what it prints goes to a file, in
//! which its verdict is marked with a token that only this rehearsal has.

mod call;
mod child;

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{io, iter};

use super::load_file::Source;
use crate::child::{self as children, Ended, Limits, Memory, Role, Scratch, Start, last_words, seconds, wait};
use crate::private_dir::random;
use crate::{BoxError, Payload};
use call::{Call, FILE_SLACK, FOLDER_VARIABLE, LOADED, PASSED, REACHED, REFUSED, VARIABLE};

/// Limits a rehearsal. The child also writes no core file, and no file much larger than the artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// When the child and all it started in its process group are killed.
    pub deadline: Duration,
    /// How much address space the child may have, in bytes; enforced on Unix.
    pub memory: Option<u64>,
    /// How much processor time the child may use, rounded up to seconds; enforced on Unix.
    pub cpu: Option<Duration>,
    /// How long the loader and the library's constructors may take together. Meanwhile no thread of the host can start, so
    /// work belongs into `create`. On Linux the time that the child waited for a processor does not count.
    pub loading: Duration,
}

/// Ten seconds, of which a tenth of a second for the constructors, and no limits beyond the host's own.
impl Default for Rehearsal {
    fn default() -> Rehearsal {
        Rehearsal { deadline: Duration::from_secs(10), memory: None, cpu: None, loading: Duration::from_millis(100) }
    }
}

/// Whether libraries are rehearsed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Policy {
    /// If this process can.
    #[default]
    WherePossible,
    Always(Rehearsal),
    Never,
}

impl Policy {
    /// Lets a child try it first, if that is to be.
    pub(super) fn rehearse(&self, rehearsed: &Rehearsed<'_>, source: &Source) -> Result<(), RehearsalError> {
        match self {
            Policy::Always(rehearsal) => rehearsal.run(rehearsed, source),
            Policy::WherePossible if can_rehearse() => Rehearsal::default().run(rehearsed, source),
            Policy::WherePossible => {
                static TOLD: AtomicBool = AtomicBool::new(false);
                // Not in a `Once`: a subscriber that panics or hangs there would be every later load's.
                if !TOLD.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "libraries are loaded without a rehearsal: a constructor that crashes or hangs does so in this \
                         process. Call hotslot::native::rehearsal_point() first thing in main, or say without_rehearsal()"
                    );
                }
                Ok(())
            }
            Policy::Never => Ok(()),
        }
    }
}

/// Returns whether this process can rehearse libraries: it came by a [rehearsal point](crate::rehearsal_point), and has no more
/// rights than its user.
pub fn can_rehearse() -> bool {
    children::is_armed() && (!children::privileged() || children::is_child())
}

/// How a rehearsal failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RehearsalError {
    /// The program did not say where a child takes its part.
    #[error("a rehearsal starts this program again: call hotslot::native::rehearsal_point() first thing in main")]
    NoRehearsalPoint,
    /// The program has more rights than the user who started it.
    #[error("a program with raised privileges does not take code from its environment: it cannot rehearse")]
    Privileged,
    /// The child could not be started.
    #[error("the child process for the rehearsal could not be started: {0}")]
    Start(io::Error),
    /// The plugin could not be loaded, or its instance not made.
    #[error("the rehearsal refused the plugin: {message}")]
    Refused {
        /// Why.
        message: String,
    },
    /// The child ended before it had finished.
    #[error("the rehearsal {ended}{output}: the plugin would have done that to the host")]
    Died {
        /// How: by which signal, or with which exit code.
        ended: String,
        /// What it printed last.
        output: String,
    },
    /// The constructors took too long.
    #[error(
        "loading the library took {took:?} in the rehearsal, and {limit:?} are allowed: no thread of the host can start \
         meanwhile. Move the work of its constructors to `create`, or raise Rehearsal::loading"
    )]
    SlowToLoad {
        /// How long it took.
        took: Duration,
        /// The limit.
        limit: Duration,
    },
    /// The child did not end in time.
    #[error("the rehearsal was not over after {deadline:?}{output}: the plugin hangs, or needs a longer deadline")]
    TooLate {
        /// The deadline.
        deadline: Duration,
        /// What it printed last.
        output: String,
    },
    /// The child was not this program, or went another way.
    #[error("the child {ended} without coming to rehearsal_point(){output}: call it before anything else in main")]
    NotReached {
        /// How it ended.
        ended: String,
        /// What it printed last.
        output: String,
    },
}

/// What is rehearsed.
pub(super) struct Rehearsed<'a> {
    pub(super) artifact: &'a [u8],
    /// The mapped libraries that it meets, which the child loads first.
    pub(super) beside: &'a [Payload],
    pub(super) part: &'a Part,
}

/// What the child does, unless the program brings a part of its own.
pub(super) enum Part {
    /// Loads the library, so that its constructors run.
    Load,
    /// Also makes an instance with this configuration, and destroys it.
    Create(Arc<[u8]>),
}

/// Marks the [rehearsal point](crate::rehearsal_point), with a part of your own: `part` gets the artifact's bytes and says whether they will do.
pub fn rehearsal_point_with(part: impl FnOnce(Vec<u8>) -> Result<(), BoxError>) {
    children::enter(Some(child::role(Some(Box::new(part)))));
}

/// Returns what a child is for that rehearses.
pub(crate) fn rehearsal_role() -> Role<'static> {
    child::role(None)
}

impl Rehearsal {
    /// Lets a child try it, with a copy beside `source`; returns once that has shown that this process can.
    ///
    /// In a child nothing is done: it *is* the rehearsal.
    pub(super) fn run(&self, rehearsed: &Rehearsed<'_>, source: &Source) -> Result<(), RehearsalError> {
        let Rehearsed { artifact, beside, part } = rehearsed;
        if children::is_child() {
            return Ok(());
        }
        if !children::is_armed() {
            return Err(RehearsalError::NoRehearsalPoint);
        }
        if children::privileged() {
            return Err(RehearsalError::Privileged);
        }
        let config: &[u8] = match part {
            Part::Load => &[],
            Part::Create(config) => config,
        };
        // A child that crashes while it loads from a file leaves it to the host to clean up.
        let folder = source.folder_for_child();
        let largest =
            beside.iter().map(|payload| payload.bytes().len()).chain([artifact.len()]).max().unwrap_or_default();
        let call = Call {
            token: format!("{:016x}", random()),
            create: matches!(part, Part::Create(_)),
            from_memory: folder.is_none(),
            config: config.len(),
            beside: beside.iter().map(|payload| payload.bytes().len()).collect(),
        };
        let limits = Limits {
            deadline: seconds(self.deadline),
            memory: self.memory.map_or(Memory::Unlimited, Memory::Total),
            cpu: self.cpu.map(seconds),
            file_size: largest as u64 + FILE_SLACK,
        };
        let parts: Vec<&[u8]> =
            iter::once(config).chain(beside.iter().map(Payload::bytes)).chain([*artifact]).collect();
        let input = Scratch::new(&parts).map_err(RehearsalError::Start)?;
        let mut output = Scratch::new(&[]).map_err(RehearsalError::Start)?;
        let environment: Vec<_> =
            folder.iter().map(|folder| (FOLDER_VARIABLE, folder.path().as_os_str() as &OsStr)).collect();
        let start = Start {
            variable: VARIABLE,
            limits: &limits,
            told: &call.write(),
            environment: &environment,
            input: &input,
            output: &output,
            errors: &output,
        };
        let ended =
            start.start().and_then(|child| wait(child, self.deadline, &|| false)).map_err(RehearsalError::Start)?;
        let printed = output.read_back(u64::MAX).map_err(RehearsalError::Start)?;
        self.judge(ended, &String::from_utf8_lossy(&printed), &call.token)
    }

    fn judge(&self, ended: Ended, printed: &str, token: &str) -> Result<(), RehearsalError> {
        let said = |word: &str| {
            let (_, after) = printed.split_once(&format!("{token} {word}"))?;
            Some(after.split_once('\n').map_or(after, |(line, _)| line))
        };
        let took = said(LOADED).and_then(|micros| micros.trim().parse().ok()).map(Duration::from_micros);
        if let Some(took) = took.filter(|took| *took > self.loading) {
            return Err(RehearsalError::SlowToLoad { took, limit: self.loading });
        }
        if said(PASSED).is_some() {
            return Ok(());
        }
        if let Some(message) = said(REFUSED) {
            return Err(RehearsalError::Refused { message: message.trim_start().to_owned() });
        }
        let output = last_words(printed, token);
        if let Ended::Killed = ended {
            return Err(RehearsalError::TooLate { deadline: self.deadline, output });
        }
        let ended = ended.describe();
        Err(match said(REACHED) {
            Some(_) => RehearsalError::Died { ended, output },
            None => RehearsalError::NotReached { ended, output },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use super::*;
    use crate::native::load_file::{Label, Place};

    #[test]
    fn the_verdict_is_found_among_what_the_plugin_printed() {
        let judge =
            |printed: &str| Rehearsal::default().judge(Ended::InTime(Some(ExitStatus::default())), printed, "t0k");
        assert!(judge("\nt0k reached \nhello\nt0k passed \n").is_ok());
        let refused = judge("\nt0k reached \nt0k refused no such table\n").unwrap_err();
        assert!(matches!(refused, RehearsalError::Refused { message } if message == "no such table"));
        let died = judge("\nt0k reached \nhello \x1b[2J\npassed").unwrap_err().to_string();
        assert!(died.contains("exited with code 0") && died.contains("hello \\u{1b}[2J | passed"), "{died}");
        assert!(matches!(judge("usage: …"), Err(RehearsalError::NotReached { .. })));
        let slow = judge("\nt0k reached \nt0k loaded 100001\nt0k passed \n").unwrap_err();
        assert!(matches!(slow, RehearsalError::SlowToLoad { took, .. } if took.as_micros() == 100_001), "{slow}");
        assert!(judge("\nt0k reached \nt0k loaded 100000\nt0k passed \n").is_ok());
        let reaped = Rehearsal::default().judge(Ended::InTime(None), "\nt0k reached \nt0k passed \n", "t0k");
        assert!(reaped.is_ok(), "it is what the child says that counts");
    }

    #[test]
    fn a_program_without_a_rehearsal_point_is_told() {
        let rehearsed = Rehearsed { artifact: b"", beside: &[], part: &Part::Load };
        let label = Label { slot: "untold", generation: 1, digest: crate::Digest::of(b"") };
        let source = Source::new(b"", &label, &Place::default(), u64::MAX).unwrap();
        let result = Rehearsal::default().run(&rehearsed, &source);
        assert!(matches!(result, Err(RehearsalError::NoRehearsalPoint)), "{result:?}");
    }
}

//! What was tried to change what serves, and what came of it: the slot's reports, with what only the node can measure.
//!
//! It is kept in a file, one attempt a line: once when it has ended, and again when all is there that is measured of it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use hotslot::{BoxError, Cause, Digest, Outcome, Report, escape_untrusted};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Refusal, complain};
use crate::hold::Held;
use crate::json::{millis, moment, unix};
use crate::release::Release;
use crate::replace_file::replace_file;

/// How many attempts are remembered.
const REMEMBERED: usize = 256;
/// The file is written anew when it has so many lines.
const LINES: usize = 4 * REMEMBERED;

/// Who or what asks for a change.
#[derive(Clone, Copy, Debug)]
pub enum Trigger {
    Upload,
    RuleRequest,
    Release,
    ModuleFile,
    RuleFile,
    Fleet,
}

impl Trigger {
    pub fn name(self) -> &'static str {
        match self {
            Trigger::Upload => "upload",
            Trigger::RuleRequest => "rule_request",
            Trigger::Release => "release",
            Trigger::ModuleFile => "module_file",
            Trigger::RuleFile => "rule_file",
            Trigger::Fleet => "fleet",
        }
    }
}

/// One attempt. All figures were measured.
#[derive(Clone, Serialize, Deserialize)]
pub struct Record {
    pub timestamp: String,
    /// The same in seconds since 1970.
    pub at: f64,
    pub trigger: String,
    pub reason: Option<String>,
    pub version: Option<String>,
    pub generation: Option<u64>,
    pub previous_generation: Option<u64>,
    pub digest: String,
    pub rules_digest: String,
    pub size_bytes: usize,
    pub duration_ms: f64,
    /// `None` if the node was ended before it was measured.
    pub downtime_ms: Option<f64>,
    pub requests_during_reload: Option<u64>,
    pub success: bool,
    /// Whether that version served already, so that there was nothing to do.
    pub unchanged: bool,
    pub stage: Option<String>,
    pub error: Option<String>,
}

impl From<&Report> for Record {
    fn from(report: &Report) -> Record {
        let digest = |digest: Option<Digest>| digest.map(|digest| digest.to_string()).unwrap_or_default();
        let said = |text: &str| escape_untrusted(text).into_owned();
        let (stage, error) = match &report.outcome {
            Outcome::Refused { stage, error } => (Some(stage.to_string()), Some(said(error))),
            _ => (None, None),
        };
        Record {
            timestamp: moment(report.at),
            at: unix(report.at),
            trigger: trigger(report).to_owned(),
            reason: match &report.cause {
                Cause::Automatic { reason } => Some(said(reason)),
                _ => report.reason.as_deref().map(str::to_owned),
            },
            version: report.version.as_ref().map(ToString::to_string),
            generation: report.generation(),
            previous_generation: match report.outcome {
                Outcome::Swapped { previous, .. } => previous,
                _ => None,
            },
            digest: digest(report.digest),
            rules_digest: digest(report.config_digest),
            size_bytes: report.size,
            duration_ms: millis(report.total),
            downtime_ms: None,
            requests_during_reload: None,
            success: report.generation().is_some(),
            unchanged: matches!(report.outcome, Outcome::Unchanged { .. }),
            stage,
            error,
        }
    }
}

/// Returns what asked for an attempt.
pub(super) fn trigger(report: &Report) -> &str {
    match report.cause {
        Cause::Automatic { .. } => "automatic_rollback",
        _ => report.requested_by.as_deref().unwrap_or_default(),
    }
}

/// The attempts, in the order in which they ended. One is not shown before all that is measured of it is there, and
/// another one may be through by then.
pub(super) struct History {
    /// Held for a look or a note.
    entries: Mutex<VecDeque<Entry>>,
    /// Held over the disk's work, by whoever changes the entries, so never by a reader.
    log: Mutex<Option<Log>>,
}

struct Entry {
    /// Of this start of the node, the slot's number; of an earlier one, `None`.
    attempt: Option<u64>,
    is_measured: bool,
    record: Record,
}

impl History {
    /// Opens the history that is kept in a file. What cannot be read of it is left out: the end of it, after a crash.
    pub(super) fn open(path: PathBuf) -> Result<History, BoxError> {
        let named = |error: std::io::Error| format!("{}: {error}", path.display());
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(named(error).into()),
        };
        let mut lines: Vec<Line> = Vec::new();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            let same = |other: &&mut Line| other.start == line.start && other.attempt == line.attempt;
            match lines.iter_mut().find(same) {
                Some(same) => *same = line,
                None => lines.push(line),
            }
        }
        lines.drain(..lines.len().saturating_sub(REMEMBERED));
        let log = Log::rewrite(path.clone(), &lines).map_err(named)?;
        let earlier = |line: Line| Entry { attempt: None, is_measured: true, record: line.record };
        Ok(History { entries: Mutex::new(lines.into_iter().map(earlier).collect()), log: Mutex::new(Some(log)) })
    }

    /// A history that nothing is kept of.
    #[cfg(test)]
    fn in_memory() -> History {
        History { entries: Mutex::default(), log: Mutex::default() }
    }

    /// Adds an attempt that has ended, unless it is a rollback that was refused: there may be any number of those, and
    /// whoever asked for one got the answer. Nobody measures what the slot did on its own.
    pub(super) fn add(&self, report: &Report) {
        if matches!((&report.cause, &report.outcome), (Cause::Rollback, Outcome::Refused { .. })) {
            return;
        }
        let is_measured = matches!(report.cause, Cause::Open | Cause::Automatic { .. });
        let mut log = self.log.lock();
        let mut entry = Entry { attempt: Some(report.attempt), is_measured, record: report.into() };
        if is_measured {
            // No request waits for either.
            entry.record.note(Held::default());
        }
        write(&mut log, entry.attempt, &entry.record);
        let mut entries = self.entries.lock();
        if entries.len() == REMEMBERED {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// Shows an attempt that succeeded, with what was measured of it.
    pub(super) fn succeeded(&self, report: &Report, held: Held) -> Record {
        let mut record = Record::from(report);
        record.note(held);
        self.show(|entry| entry.attempt == Some(report.attempt), |shown| *shown = record.clone());
        record
    }

    /// Shows the reload that was refused, with what was measured of it. There is one reload at a time.
    pub(super) fn refused(&self, refusal: &Refusal, release: &Release, held: Held) {
        let is_reload = |entry: &Entry| !entry.is_measured && !entry.record.success;
        self.show(is_reload, |record| {
            record.note(held);
            // The slot does not hash what it refuses for its size.
            record.digest = release.module.digest().to_string();
            record.rules_digest = release.rules.digest().to_string();
            record.stage = Some(refusal.stage().to_owned());
            record.error = Some(escape_untrusted(&refusal.to_string()).into_owned());
        });
    }

    fn show(&self, which: impl Fn(&Entry) -> bool, complete: impl FnOnce(&mut Record)) {
        let mut log = self.log.lock();
        let changed = self.entries.lock().iter_mut().rfind(|entry| which(entry)).map(|entry| {
            entry.is_measured = true;
            complete(&mut entry.record);
            (entry.attempt, entry.record.clone())
        });
        if let Some((attempt, record)) = changed {
            write(&mut log, attempt, &record);
        }
    }

    /// The attempts, with whether each is of this start of the node: generations are numbered anew with each.
    pub(super) fn all(&self) -> Vec<(Record, bool)> {
        let entries = self.entries.lock();
        let shown = entries.iter().filter(|entry| entry.is_measured);
        shown.map(|entry| (entry.record.clone(), entry.attempt.is_some())).collect()
    }

    /// The version that a module had when it last served.
    pub(super) fn version_of(&self, module: &str) -> Option<String> {
        let entries = self.entries.lock();
        let last = entries.iter().rfind(|entry| entry.record.success && entry.record.digest == module)?;
        last.record.version.clone()
    }
}

fn write(log: &mut Option<Log>, attempt: Option<u64>, record: &Record) {
    if let (Some(log), Some(attempt)) = (log, attempt) {
        complain(log.write(attempt, record).map_err(|error| format!("history: {error}").into()));
    }
}

impl Record {
    fn note(&mut self, held: Held) {
        self.downtime_ms = Some(millis(held.longest));
        self.requests_during_reload = Some(held.requests);
    }
}

/// The file.
struct Log {
    path: PathBuf,
    file: File,
    /// Names this start of the node.
    start: String,
    lines: usize,
}

#[derive(Serialize, Deserialize)]
struct Line {
    start: String,
    attempt: u64,
    record: Record,
}

impl Log {
    /// Writes the file anew, with these lines.
    fn rewrite(path: PathBuf, lines: &[Line]) -> std::io::Result<Log> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        replace_file(&path, &text)?;
        let file = append_to(&path)?;
        let start = format!("{:016x}", rand::random::<u64>());
        Ok(Log { path, file, start, lines: lines.len() })
    }

    fn write(&mut self, attempt: u64, record: &Record) -> std::io::Result<()> {
        if self.lines >= LINES {
            self.shorten()?;
        }
        let mut line = serde_json::to_vec(&Line { start: self.start.clone(), attempt, record: record.clone() })?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.lines += 1;
        // Of what was refused, a power cut may take the last lines.
        if record.success { self.file.sync_data() } else { Ok(()) }
    }

    fn shorten(&mut self) -> std::io::Result<()> {
        let text = std::fs::read_to_string(&self.path)?;
        let lines: Vec<&str> = text.lines().collect();
        let rest = &lines[lines.len().saturating_sub(2 * REMEMBERED)..];
        replace_file(&self.path, format!("{}\n", rest.join("\n")).as_bytes())?;
        self.file = append_to(&self.path)?;
        self.lines = rest.len();
        Ok(())
    }
}

fn append_to(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).open(path)
}

#[cfg(test)]
mod tests {
    use hotslot::{Admission, Artifact, Backend, BoxError, Candidate, HotSlot, LoadContext, Loaded, Manifest, Payload};

    use super::*;

    struct Empty;

    impl Backend<()> for Empty {
        fn admit(&self, _: &Payload) -> Result<Admission, BoxError> {
            Ok(Manifest::new("empty").into())
        }

        fn load(&self, _: &Artifact, _: &LoadContext) -> Result<Loaded<()>, BoxError> {
            Ok(Loaded::new(()))
        }
    }

    #[test]
    fn readers_do_not_wait_for_the_disk() {
        let history = History::in_memory();
        // As long as the file is written, its lock is held.
        let _writing = history.log.lock();
        assert!(history.all().is_empty() && history.version_of("none").is_none());
    }

    #[test]
    fn attempts_stand_in_the_order_in_which_they_ended() {
        let slot = HotSlot::builder(Empty).open(b"0").unwrap();
        let history = History::in_memory();
        let shown = || {
            let all = history.all().into_iter();
            all.map(|(record, _)| (record.trigger, record.generation.unwrap())).collect::<Vec<_>>()
        };
        let reload = |bytes: &[u8]| {
            let report = slot.reload(Candidate::new(bytes).requested_by("upload")).unwrap();
            history.add(&report);
            report
        };
        let (first, second) = (reload(b"1"), reload(b"2"));
        assert!(shown().is_empty(), "nothing is measured yet");
        let held = Held { requests: 7, ..Held::default() };
        assert_eq!(history.succeeded(&second, held).requests_during_reload, Some(7));
        assert_eq!(shown(), [("upload".to_owned(), 3)]);
        history.succeeded(&first, Held::default());
        assert_eq!(shown(), [("upload".to_owned(), 2), ("upload".to_owned(), 3)]);
    }
}

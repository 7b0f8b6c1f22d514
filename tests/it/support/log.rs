//! The log of a process, for tests that have one to themselves.

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata};

/// A subscriber that keeps what it gets, unformatted.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Line>>>);

struct Line {
    target: String,
    level: Level,
    message: String,
    text: String,
}

impl Log {
    /// Takes the log of the whole process.
    pub(crate) fn capture() -> Log {
        let log = Log::default();
        tracing::subscriber::set_global_default(log.clone()).expect("this process has no other log");
        log
    }

    /// The last one of this target.
    pub(crate) fn last(&self, target: &str) -> (Level, String) {
        let lines = self.0.lock().unwrap();
        let line = lines.iter().rfind(|line| line.target == target).expect("there is such a line");
        (line.level, line.text.clone())
    }

    /// The last one with this text, behind which there may be a backtrace.
    pub(crate) fn with(&self, target: &str, text: &str) -> (Level, String) {
        let lines = self.0.lock().unwrap();
        let found = lines.iter().rfind(|line| line.target == target && line.text.contains(text));
        found.map(|line| (line.level, line.text.clone())).expect("there is such a line")
    }

    /// All of this target.
    pub(crate) fn of(&self, target: &str) -> Vec<(Level, String)> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.target == target).map(|line| (line.level, line.text.clone())).collect()
    }

    /// Takes what was logged so far, without the fields.
    pub(crate) fn take_messages(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap()).into_iter().map(|line| line.message).collect()
    }

    /// The warnings and errors.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.level <= Level::WARN).map(|line| line.text.clone()).collect()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|line| line.text.clone()).collect()
    }
}

/// The fields of an event, as text.
#[derive(Default)]
pub(crate) struct Fields {
    message: String,
    pub(crate) all: String,
}

impl Fields {
    pub(crate) fn of(event: &tracing::Event<'_>) -> Fields {
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
        write!(self.all, " {}={value:?}", field.name()).expect("a string takes everything");
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let fields = Fields::of(event);
        let (target, level) = (event.metadata().target().to_owned(), *event.metadata().level());
        self.0.lock().unwrap().push(Line { target, level, message: fields.message, text: fields.all });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

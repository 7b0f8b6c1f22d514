//! What a plugin, and a library in it, logs through `log` and `tracing` reaches the host. Each test has a process of its own,
//! whose log is the test's.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

use hotslot::HotSlot;
use hotslot::native::{Native, Unload};
use hotslot_fixture_interface::v1_0::Fixture;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::{built, slots};
use crate::native::{destroyed, elsewhere, is_freed};
use crate::support::process::alone;
use crate::support::trust;

/// Keeps what plugins log.
#[derive(Clone)]
struct Log {
    lines: Arc<Mutex<Vec<(Level, String)>>>,
    most: LevelFilter,
}

impl Log {
    fn capture(most: LevelFilter) -> Log {
        let log = Log { lines: Arc::default(), most };
        tracing::subscriber::set_global_default(log.clone()).expect("this process has no other log");
        log
    }

    /// Takes what was logged so far.
    fn take(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "hotslot::plugin" && *metadata.level() <= self.most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Fields(String);
        impl Visit for Fields {
            fn record_str(&mut self, field: &Field, value: &str) {
                write!(self.0, "{}={value};", field.name()).expect("a string takes everything");
            }

            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                write!(self.0, "{}={value:?};", field.name()).expect("a string takes everything");
            }
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.lines.lock().unwrap().push((*event.metadata().level(), fields.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[track_caller]
fn has(line: &(Level, String), level: Level, parts: &[&str]) {
    assert_eq!(line.0, level, "{}", line.1);
    for part in parts {
        assert!(line.1.contains(part), "{part} is not in {}", line.1);
    }
}

#[test]
fn what_a_library_in_a_plugin_logs_arrives_with_its_target() {
    alone(|| {
        let log = Log::capture(LevelFilter::TRACE);
        for (kind, slot) in slots::<dyn Fixture>("") {
            log.take();
            slot.load().fail("log library").unwrap();
            let lines = log.take();
            assert_eq!(lines.len(), 1, "{kind}: {lines:?}");
            let parts = ["message=said log library;", "plugin_target=a_library;", "plugin=fixture;", "generation=1;"];
            has(&lines[0], Level::WARN, &parts);
        }
    });
}

#[test]
fn events_arrive_with_their_fields_and_the_spans_around_them() {
    alone(|| {
        let log = Log::capture(LevelFilter::TRACE);
        for (kind, slot) in slots::<dyn Fixture>("") {
            log.take();
            for _ in 0..2 {
                slot.load().fail("log event").unwrap();
                let lines = log.take();
                assert_eq!(lines.len(), 2, "{kind}: {lines:?}");
                let fields = "plugin_fields=symbol=\"SOL\" size=3;";
                let spans = "plugin_spans=outer{order=7}:inner{price=1.5};";
                let target = "plugin_target=hotslot_fixture_typed;";
                has(&lines[0], Level::WARN, &["message=filled;", target, fields, spans]);
                has(&lines[1], Level::ERROR, &["message=alone;", target]);
                assert!(!lines[1].1.contains("plugin_spans"), "{}", lines[1].1);
            }
        }
    });
}

#[test]
fn what_nobody_listens_to_is_not_even_formatted() {
    alone(|| {
        let log = Log::capture(LevelFilter::INFO);
        for (kind, slot) in slots::<dyn Fixture>("") {
            assert_eq!(slot.load().fail("log costly").unwrap(), "0", "{kind}");
            assert!(log.take().is_empty());
            // A span of a level that is off is not named.
            slot.load().fail("log event").unwrap();
            has(&log.take()[0], Level::WARN, &["plugin_spans=outer{order=7};"]);
        }
    });
}

#[test]
fn what_is_logged_while_an_event_is_formatted_is_an_event_too() {
    alone(|| {
        let log = Log::capture(LevelFilter::TRACE);
        for (kind, slot) in slots::<dyn Fixture>("") {
            log.take();
            slot.load().fail("log nested").unwrap();
            let lines = log.take();
            assert_eq!(lines.len(), 2, "{kind}: {lines:?}");
            has(&lines[0], Level::WARN, &["message=within;"]);
            has(&lines[1], Level::WARN, &["message=around;"]);
        }
    });
}

#[test]
fn threads_of_a_library_log_and_do_not_keep_it_mapped() {
    alone(|| {
        let log = Log::capture(LevelFilter::TRACE);
        let native = Native::interface::<dyn Fixture>(trust()).unload(Unload::WhenIdle);
        let slot = HotSlot::builder(native).name("logging").keep_previous(0).open(built::library("").bytes()).unwrap();
        let (events, mut generation) = (slot.subscribe(), 0);
        let mut is_unmapped = || {
            log.take();
            for how in ["log thread", "log event", "log library"] {
                elsewhere(|| slot.load().fail(how).unwrap());
            }
            has(&log.take()[0], Level::WARN, &["message=from a thread;", "plugin_spans=job;"]);
            generation += 1;
            elsewhere(|| slot.reload(built::library("").answering(generation).bytes()).unwrap());
            is_freed(&destroyed(&events, generation))
        };
        // A thread that runs at the moment may be inside, which is a doubt; a destructor in a thread is not, and fails this.
        assert!((0..50).any(|_| is_unmapped()));
    });
}

//! Tracing subscribers are foreign code, too: one that panics, or that asks for a transition, harms nobody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use hotslot::{Event, HotSlot, Stage};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

use crate::support::process::alone;
use crate::support::{Plugin, Values, close, eventually, serving, wait_for};

/// Calls this for every span and every line of the library.
struct Layer<F>(F);

impl<F: Fn() + Send + Sync + 'static> Subscriber for Layer<F> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("hotslot")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        (self.0)();
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        (self.0)();
    }
    fn enter(&self, _: &Id) {
        (self.0)();
    }
    fn exit(&self, _: &Id) {
        (self.0)();
    }
}

#[test]
fn a_layer_that_asks_for_a_transition_is_told_that_it_is_inside() {
    alone(|| {
        let slot: Arc<OnceLock<HotSlot<Plugin>>> = Arc::default();
        let (asked, misuses) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let layer = {
            let (slot, asked, misuses, answers) = (slot.clone(), asked.clone(), misuses.clone(), answers.clone());
            Layer(move || {
                let Some(slot) = slot.get() else { return };
                asked.fetch_add(1, Ordering::Relaxed);
                match slot.rollback() {
                    Err(error) if error.is_misuse() => drop(misuses.fetch_add(1, Ordering::Relaxed)),
                    other => answers.lock().unwrap().push(format!("{other:?}")),
                }
            })
        };
        tracing::subscriber::set_global_default(layer).unwrap();
        let values = Values::new();
        assert!(slot.set(values.builder().open(b"p 1.0.0 1").unwrap()).is_ok());
        let slot = slot.get().unwrap();
        for number in 2..20 {
            slot.reload(format!("p {number}.0.0 {number}").into_bytes()).expect("no swap is locked out");
        }
        slot.rollback().unwrap();
        assert_eq!(serving(slot), (18, 18));
        assert!(asked.load(Ordering::Relaxed) > 100);
        let all_are_told = || asked.load(Ordering::Relaxed) == misuses.load(Ordering::Relaxed);
        eventually("each is told that it is inside", || all_are_told() || !answers.lock().unwrap().is_empty());
        assert_eq!(*answers.lock().unwrap(), [""; 0], "none of them was let through");
    });
}

#[test]
fn a_subscriber_that_panics_harms_neither_a_transition_nor_the_reaper() {
    alone(|| {
        let panics = Arc::new(AtomicU64::new(0));
        let counted = panics.clone();
        let layer = Layer(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            panic!("a subscriber panics on purpose");
        });
        tracing::subscriber::set_global_default(layer).unwrap();
        let values = Values::new();
        let slot = values.builder().keep_previous(0).open(b"p 1.0.0 1").unwrap();
        let events = slot.subscribe();
        for number in 2..10 {
            slot.reload(format!("p {number}.0.0 {number}").into_bytes()).unwrap();
            wait_for(&events, |event| matches!(event, Event::Destroyed { .. }).then_some(()));
        }
        slot.reload(b"p 10.0.0 10 probe=fail").unwrap_err();
        eventually("the reaper has destroyed that, too", || values.census.alive() == [9]);
        assert!(panics.load(Ordering::Relaxed) > 50, "it did panic");
        close(slot, &values.census);
    });
}

/// The stages for which there was a span, by the numbers of their attempts.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(u64, String)>>>);

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("hotslot")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        #[derive(Default)]
        struct Fields(u64, String);
        impl tracing::field::Visit for Fields {
            fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
                if field.name() == "attempt" {
                    self.0 = value;
                }
            }
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "stage" {
                    self.1 = format!("{value:?}");
                }
            }
        }
        let mut fields = Fields::default();
        span.record(&mut fields);
        self.0.lock().unwrap().push((fields.0, fields.1));
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn each_stage_that_does_work_has_a_span_with_its_attempt() {
    alone(|| {
        let spans = Spans::default();
        tracing::subscriber::set_global_default(spans.clone()).unwrap();
        let values = Values::new();
        let probe = |_: &Plugin| Ok::<(), hotslot::BoxError>(());
        let slot = values.builder().probe(probe).open(b"p 1.0.0 1").unwrap();
        spans.0.lock().unwrap().clear();
        let attempt = slot.reload(b"p 2.0.0 2").unwrap().attempt;
        let seen = std::mem::take(&mut *spans.0.lock().unwrap());
        let expected = [Stage::Admit, Stage::Load, Stage::Probe, Stage::HandOver, Stage::Commit];
        assert_eq!(seen, expected.map(|stage| (attempt, stage.to_string())));
        close(slot, &values.census);
    });
}

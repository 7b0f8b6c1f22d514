//! What subscribers hear, and what reports, status and events look like as data.

use std::thread;
use std::time::Duration;

use hotslot::{Event, Lease, Outcome, Stage, Subscription};
use serde_json::{Value, json};

use crate::support::{Values, close, wait_for};

/// How many events wait for a subscriber.
const CAPACITY: usize = 1024;

fn waiting(events: &Subscription) -> Vec<Event> {
    std::iter::from_fn(|| events.try_recv()).collect()
}

#[test]
fn every_stage_is_an_event_and_the_end_comes_last() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    let report = slot.reload(b"p 2.0.0 2").unwrap();
    let told: Vec<_> = waiting(&events)
        .into_iter()
        .filter_map(|event| match event {
            Event::Stage { attempt, stage, duration } => {
                assert_eq!(attempt, report.attempt);
                Some((Some(stage), duration))
            }
            Event::Retired { generation: 1, epoch: 2 } => Some((None, Duration::ZERO)),
            Event::Ended(ended) => {
                assert_eq!(*ended, report);
                None
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let (retired, stages) = told.split_last().unwrap();
    let measured: Vec<_> = report.stages.iter().map(|(stage, duration)| (Some(*stage), *duration)).collect();
    assert_eq!((retired.0, stages), (None, &measured[..]), "as measured for the report");
    close(slot, &values.census);
}

#[test]
fn a_refused_attempt_is_told_up_to_where_it_came() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2 load=fail").unwrap_err();
    let told = waiting(&events);
    assert!(
        matches!(
            &told[..],
            [
                Event::Stage { stage: Stage::Copy, .. },
                Event::Stage { stage: Stage::Queue, .. },
                Event::Stage { stage: Stage::Hash, .. },
                Event::Stage { stage: Stage::Gate, .. },
                Event::Stage { stage: Stage::Admit, .. },
                Event::Stage { stage: Stage::Load, .. },
                Event::Ended(_)
            ]
        ),
        "{told:?}"
    );
    close(slot, &values.census);
}

#[test]
fn a_slow_subscriber_loses_the_oldest_and_is_told_how_many() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let (slow, fast) = (slot.subscribe(), slot.subscribe());
    let mut heard = 0;
    for _ in 0..CAPACITY + 7 {
        slot.reload(b"p 1.0.0 1").unwrap();
        heard += waiting(&fast).len();
    }
    assert_eq!(heard, CAPACITY + 7, "who keeps up loses nothing");
    assert!(matches!(slow.recv(), Some(Event::Lagged(7))));
    let rest = waiting(&slow);
    assert_eq!(rest.len(), CAPACITY);
    let first = rest.first().map(|event| match event {
        Event::Ended(report) => report.attempt,
        other => panic!("{other:?}"),
    });
    assert_eq!(first, Some(1 + 7 + 1), "the opening was attempt 1, and seven after it are lost");
    close(slot, &values.census);
}

#[test]
fn a_subscription_begins_when_it_is_made() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    slot.reload(b"p 2.0.0 2").unwrap();
    let events = slot.subscribe();
    assert!(events.try_recv().is_none());
    assert!(events.recv_timeout(Duration::ZERO).is_none());
    close(slot, &values.census);
}

#[test]
fn a_subscription_ends_when_the_slot_and_all_its_generations_are_gone() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    let listener = thread::spawn(move || events.filter(|event| matches!(event, Event::Destroyed { .. })).count());
    slot.reload(b"p 2.0.0 2").unwrap();
    let lease = slot.load();
    drop(slot);
    drop(lease);
    assert_eq!(listener.join().unwrap(), 2, "the last destruction was still heard");
    values.census.assert_all_destroyed();
}

#[test]
fn a_report_is_data() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let report = slot.reload(b"p 2.0.0 2").unwrap();
    let data = serde_json::to_value(&report).unwrap();
    assert_eq!(data["attempt"], 2);
    assert_eq!(data["cause"], "reload");
    assert_eq!(data["outcome"], json!({ "swapped": { "generation": 2, "previous": 1 } }));
    assert_eq!(data["version"], "2.0.0");
    assert_eq!(data["digest"], Lease::digest(&slot.load()).to_string());
    assert_eq!(data["size"], 9);
    assert_eq!(data["leases_during"], 0);
    assert_eq!(data["gap_ms"], Value::Null);
    assert!(data["at"].as_str().unwrap().ends_with('Z') && data["at"].as_str().unwrap().starts_with("20"));
    assert!(data["total_ms"].as_f64().unwrap() > 0.0);
    let stages = data["stages"].as_array().unwrap();
    assert!(stages.iter().all(|stage| stage["duration_ms"].is_f64()), "{stages:?}");
    let stages: Vec<_> = stages.iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["copy", "queue", "hash", "gate", "admit", "load", "probe", "hand_over", "commit"]);

    slot.reload(b"p 2.1.0 3 probe=fail").unwrap_err();
    let refused = serde_json::to_value(slot.history().last().unwrap()).unwrap();
    assert_eq!(refused["outcome"], json!({ "refused": { "stage": "probe", "error": "probe fails on purpose" } }));
    slot.rollback().unwrap();
    let back = serde_json::to_value(slot.history().last().unwrap()).unwrap();
    assert_eq!(back["cause"], "rollback");
    drop(slot.stage(b"p 3.0.0 3").unwrap());
    assert_eq!(slot.history().last().unwrap().outcome, Outcome::Discarded);
    close(slot, &values.census);
}

#[test]
fn a_status_is_data() {
    let values = Values::new();
    let slot = values.builder().name("rules").track_leases(true).open(b"p 1.0.0 1").unwrap();
    let lease = slot.load();
    slot.reload(b"p 2.0.0 2").unwrap();
    Lease::report_failure(&slot.load(), "oh");
    let data = serde_json::to_value(slot.status()).unwrap();
    assert_eq!(data["slot"], "rules");
    let serving = &data["serving"];
    assert_eq!(
        (&serving["generation"], &serving["version"], &serving["epoch"]),
        (&json!(2), &json!("2.0.0"), &json!(2))
    );
    assert_eq!((&serving["failures"], &serving["last_failure"]), (&json!(1), &json!("oh")));
    let retired = &data["retired"][0];
    assert_eq!((&retired["generation"], &retired["phase"], &retired["leases"]), (&json!(1), &json!("warm"), &json!(1)));
    assert_eq!(retired["digest"], Lease::digest(&lease).to_string());
    assert!(retired["oldest_lease"]["location"].as_str().unwrap().contains("events.rs"));
    assert_eq!((&data["hung"], &data["retained"]["generations"]), (&json!(0), &json!(0)));
    assert_eq!((&data["counters"]["swaps"], &data["counters"]["refused"]), (&json!(2), &json!(0)));
    drop(lease);
    close(slot, &values.census);
}

#[test]
fn an_event_is_data() {
    let values = Values::new();
    let slot = values.builder().keep_previous(0).open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2").unwrap();
    let (mut data, mut last) = (Vec::new(), 0);
    wait_for(&events, |event| {
        data.push(serde_json::to_value(event).unwrap());
        // The two come from different threads.
        last += usize::from(matches!(event, Event::Destroyed { .. } | Event::Ended(_)));
        (last == 2).then_some(())
    });
    let stage = &data[0]["stage"];
    assert_eq!((&stage["attempt"], &stage["stage"]), (&json!(2), &json!("copy")));
    assert!(data.contains(&json!({ "retired": { "generation": 1, "epoch": 2 } })), "{data:?}");
    assert!(data.contains(&json!({ "destroyed": { "generation": 1, "release": "Freed" } })), "{data:?}");
    assert!(data.iter().any(|event| event["ended"]["outcome"]["swapped"]["generation"] == 2), "{data:?}");
    close(slot, &values.census);
}

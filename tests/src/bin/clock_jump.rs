//! A host whose time of day jumps while a slot serves: the test `clock` runs it under libfaketime.
//!
//! Its argument is the file from which libfaketime takes the offset of the clock; writing to it moves the time of day.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use std::{env, fs, thread};

use hotslot::{
    Admission, Artifact, Backend, BoxError, Builder, ErrorKind, Event, HotSlot, LoadContext, Loaded, Manifest, Payload,
    Subscription,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const SHORT: Duration = Duration::from_millis(300);

fn main() {
    let clock = Clock(env::args_os().nth(1).expect("the file that moves the clock").into());
    clock.set("+0");
    min_reload_interval(&clock);
    reload_timeout(&clock);
    drain_timeout(&clock);
    println!("all limits held");
}

/// The time of day.
struct Clock(PathBuf);

impl Clock {
    /// Moves it, at once for whoever looks.
    fn set(&self, offset: &str) {
        let draft = self.0.with_extension("draft");
        fs::write(&draft, offset).expect("the clock can be moved");
        fs::rename(&draft, &self.0).expect("the clock can be moved");
    }
}

/// A plugin is its text; one that says `slow` is loaded when it is let go.
struct Texts {
    arrived: Mutex<Sender<()>>,
    go: Arc<Mutex<Receiver<()>>>,
}

impl Backend<str> for Texts {
    fn admit(&self, _: &Payload) -> Result<Admission, BoxError> {
        Ok(Manifest::default().into())
    }

    fn load(&self, artifact: &Artifact, _: &LoadContext) -> Result<Loaded<str>, BoxError> {
        let text = String::from_utf8(artifact.bytes().to_vec())?;
        if text.contains("slow") {
            self.arrived.lock().unwrap().send(())?;
            self.go.lock().unwrap().recv()?;
        }
        Ok(Loaded::boxed(text.into_boxed_str()))
    }
}

/// The slot's builder; what tells of a slow load; and what lets it go.
fn builder() -> (Builder<str>, Receiver<()>, Sender<()>) {
    let (arrived, arrival) = channel();
    let (let_go, go) = channel();
    let texts = Texts { arrived: Mutex::new(arrived), go: Arc::new(Mutex::new(go)) };
    (HotSlot::builder(texts).keep_previous(0), arrival, let_go)
}

fn min_reload_interval(clock: &Clock) {
    let (builder, ..) = builder();
    let slot = builder.min_reload_interval(HOUR).open(b"zero").unwrap();
    slot.reload(b"one").expect("the first one is never too soon");
    clock.set("+1d");
    let error = slot.reload(b"two").expect_err("the hour is not over");
    assert!(matches!(error.kind(), ErrorKind::TooSoon { retry_after } if *retry_after <= HOUR), "{error}");
    let times: Vec<SystemTime> = slot.history().iter().map(|report| report.at).collect();
    let jump = times[2].duration_since(times[1]).expect("the clock went forward");
    assert!(jump >= DAY, "the history shows wall-clock time: {jump:?}");
    clock.set("+0");

    let (builder, ..) = self::builder();
    let slot = builder.min_reload_interval(SHORT).open(b"zero").unwrap();
    slot.reload(b"one").expect("the first one is never too soon");
    let opened = slot.history()[0].at;
    clock.set("-1d");
    while let Err(error) = slot.reload(b"two") {
        assert!(matches!(error.kind(), ErrorKind::TooSoon { retry_after } if *retry_after <= SHORT), "{error}");
        thread::yield_now();
    }
    assert!(slot.history().last().unwrap().at < opened, "the clock went back");
    clock.set("+0");
}

fn reload_timeout(clock: &Clock) {
    let (builder, arrival, let_go) = builder();
    let slot = builder.reload_timeout(HOUR).open(b"one").unwrap();
    thread::scope(|scope| {
        let reload = scope.spawn(|| slot.reload(b"slow"));
        arrival.recv().unwrap();
        clock.set("+1d");
        // Far longer than a wait that took the time of day for its measure would take to end.
        thread::sleep(SHORT);
        let_go.send(()).unwrap();
        assert!(reload.join().unwrap().expect("the hour is not over").is_swap());
    });
    clock.set("+0");

    let (builder, arrival, let_go) = self::builder();
    let slot = builder.reload_timeout(SHORT).open(b"one").unwrap();
    thread::scope(|scope| {
        let reload = scope.spawn(|| slot.reload(b"slow"));
        arrival.recv().unwrap();
        clock.set("-1d");
        assert!(reload.join().unwrap().expect_err("time goes on").is_timeout());
    });
    let_go.send(()).unwrap();
    clock.set("+0");
}

fn drain_timeout(clock: &Clock) {
    let (builder, ..) = builder();
    let slot = builder.drain_timeout(HOUR).open(b"one").unwrap();
    let events = slot.subscribe();
    let held = slot.load();
    slot.reload(b"two").unwrap();
    clock.set("+1d");
    let later = slot.load();
    slot.reload(b"three").unwrap();
    drop(later);
    // The reaper has come round since the clock jumped when it has destroyed what was retired after that.
    let stuck = until(&events, |event| match event {
        Event::Stuck { .. } => Some(true),
        Event::Destroyed { generation: 2, .. } => Some(false),
        _ => None,
    });
    assert!(!stuck && !slot.status().retired[0].stuck, "the hour is not over");
    assert!(slot.status().retired[0].age < HOUR, "an age is not a difference between times of day");
    drop(held);
    clock.set("+0");

    let (builder, ..) = self::builder();
    let slot = builder.drain_timeout(SHORT).open(b"one").unwrap();
    let events = slot.subscribe();
    let _held = slot.load();
    slot.reload(b"two").unwrap();
    clock.set("-1d");
    until(&events, |event| matches!(event, Event::Stuck { generation: 1, .. }).then_some(()));
    clock.set("+0");
}

fn until<R>(events: &Subscription, mut look: impl FnMut(&Event) -> Option<R>) -> R {
    loop {
        let event = events.recv_timeout(Duration::from_secs(60)).expect("the event comes");
        if let Some(found) = look(&event) {
            return found;
        }
    }
}

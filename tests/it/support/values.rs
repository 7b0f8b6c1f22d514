//! The third backend: plugins that are plain Rust values, and do what their artifact says.
//!
//! An artifact is a line of text: `name version answer`, then what is to go wrong, as `step=what`. The version is `-`
//! if there is none. The steps are `admit`, `vet` (the admit hook), `load`, `probe`, `hand_over`, `save`, `restore`,
//! `run` and `drop`; what can happen is `fail`, `panic`, `hang` (at the backend's [`Latch`], until it is opened) and
//! `stall` (the same, and then a panic). A `run` can also `finish`: return at once, or `spin`: look at the stop signal
//! all the time. A `drop` can also panic with a `payload` whose own destructor panics. An artifact that is `anchored` says
//! so, and then a `release` can go wrong, too. One that is `slow` takes a millisecond for each answer, and one that is
//! `poisoned` reports a failure with it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::thread;
use std::time::Duration;

use hotslot::{
    Admission, Artifact, Backend, BoxError, Builder, FailureCounter, HotSlot, KeepAlive, LoadContext, Loaded, Manifest,
    Payload, Release, Runnable, State, Stateful, StopSignal, transfer_state,
};

use super::{Census, Latch};

/// The backend. Cloning gives another handle to the same census and the same latch.
#[derive(Clone, Default)]
pub(crate) struct Values {
    pub(crate) census: Census,
    pub(crate) latch: Arc<Latch>,
    /// How often plugins were asked for their answer.
    pub(crate) calls: Arc<AtomicU64>,
    /// Called at the begin of a run, with the generation.
    on_run: Arc<OnceLock<OnRun>>,
}

type OnRun = Box<dyn Fn(u64) + Send + Sync>;

/// A plugin.
pub(crate) struct Plugin {
    answer: u64,
    generation: u64,
    /// Goes from one generation to the next.
    state: AtomicU64,
    counting: Mutex<()>,
    script: Script,
    failures: FailureCounter,
    backend: Values,
    _life: Life,
}

/// Enters a plugin in the census; ends with it, also if its destructor panics.
struct Life {
    generation: u64,
    census: Census,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.census.died(self.generation);
    }
}

/// What an artifact says.
#[derive(Clone)]
struct Script {
    name: String,
    version: Option<hotslot::semver::Version>,
    answer: u64,
    flags: BTreeSet<String>,
    steps: BTreeMap<String, String>,
}

impl Values {
    pub(crate) fn new() -> Values {
        silence_deliberate_panics();
        Values::default()
    }

    /// Sets what a run does first.
    pub(crate) fn on_run(&self, body: impl Fn(u64) + Send + Sync + 'static) {
        assert!(self.on_run.set(Box::new(body)).is_ok(), "it is set once");
    }

    /// A slot with this backend and with all hooks, each of which does what the artifact says.
    pub(crate) fn builder(&self) -> Builder<Plugin> {
        let backend = self.clone();
        HotSlot::builder(self.clone())
            .admit(move |artifact| backend.act(&parse(artifact.bytes())?, "vet"))
            .probe(|plugin: &Plugin| plugin.backend.act(&plugin.script, "probe"))
            .hand_over(|old: &Plugin, new: &Plugin| {
                new.backend.act(&new.script, "hand_over")?;
                transfer_state(old, new)
            })
    }

    /// Does what the script has for a step.
    fn act(&self, script: &Script, step: &str) -> Result<(), BoxError> {
        match script.steps.get(step).map(String::as_str) {
            None | Some("finish" | "spin") => Ok(()),
            Some("fail") => Err(format!("{step} fails on purpose").into()),
            Some("panic") => panic!("{step} panics on purpose"),
            Some("payload") => panic::panic_any(Bomb),
            Some("hang") => {
                self.latch.pass();
                Ok(())
            }
            Some("stall") => {
                self.latch.pass();
                panic!("{step} panics on purpose")
            }
            Some(other) => Err(format!("a test says {step}={other}, which means nothing").into()),
        }
    }
}

impl Backend<Plugin> for Values {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        let script = parse(payload.bytes())?;
        self.act(&script, "admit")?;
        let manifest = Manifest::new(script.name);
        Ok(match script.version {
            Some(version) => manifest.with_version(version),
            None => manifest,
        }
        .into())
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<Plugin>, BoxError> {
        let script = parse(artifact.bytes())?;
        self.act(&script, "load")?;
        let (generation, anchored) = (context.generation, script.flags.contains("anchored"));
        let ground = Ground { generation, census: self.census.clone(), script: script.clone(), backend: self.clone() };
        self.census.born(generation, anchored);
        let loaded = Loaded::new(Plugin {
            answer: script.answer,
            generation,
            state: AtomicU64::new(0),
            counting: Mutex::default(),
            script,
            failures: context.failures.clone(),
            backend: self.clone(),
            _life: Life { generation, census: self.census.clone() },
        });
        Ok(if anchored { loaded.keep_alive(ground) } else { loaded })
    }
}

impl Plugin {
    /// What the artifact says that it answers.
    pub(crate) fn answer(&self) -> u64 {
        self.backend.calls.fetch_add(1, Ordering::Relaxed);
        if self.script.flags.contains("slow") {
            thread::sleep(Duration::from_millis(1));
        }
        if self.script.flags.contains("poisoned") {
            self.failures.report_failure("poisoned");
        }
        self.answer
    }

    /// Adds one to the state, and not as one step: what comes between is lost.
    pub(crate) fn count(&self) {
        let _one_at_a_time = self.counting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = self.state();
        thread::yield_now();
        self.set_state(before + 1);
    }

    /// The generation that the backend was told.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn state(&self) -> u64 {
        self.state.load(Ordering::SeqCst)
    }

    pub(crate) fn set_state(&self, state: u64) {
        self.state.store(state, Ordering::SeqCst);
    }

    pub(crate) fn health(&self) -> &FailureCounter {
        &self.failures
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.answer = u64::MAX; // what nobody may ever hear
        self.backend.act(&self.script, "drop").expect("a drop can hang or panic, not fail");
    }
}

/// The state is a number.
impl Stateful for Plugin {
    fn save(&self) -> Result<Option<State>, BoxError> {
        self.backend.act(&self.script, "save")?;
        Ok(Some(State { schema: "number/1".into(), bytes: self.state().to_le_bytes().to_vec() }))
    }

    fn restore(&self, state: &State) -> Result<(), BoxError> {
        self.backend.act(&self.script, "restore")?;
        self.set_state(u64::from_le_bytes(state.bytes[..].try_into()?));
        Ok(())
    }
}

/// A run adds one to the state; then it waits for the stop signal, unless the script has something else in mind. One
/// that hangs does not look at the signal.
impl Runnable for Plugin {
    fn run(&self, stop: &StopSignal) -> Result<(), BoxError> {
        self.backend.census.runs(self.generation);
        if let Some(body) = self.backend.on_run.get() {
            body(self.generation);
        }
        let result = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            self.state.fetch_add(1, Ordering::SeqCst);
            self.backend.act(&self.script, "run")?;
            match self.script.steps.get("run").map(String::as_str) {
                None => wait_until(|| stop.is_raised(), || thread::park_timeout(Duration::from_millis(1))),
                Some("spin") => wait_until(|| stop.is_raised(), thread::yield_now),
                Some(_) => {}
            }
            Ok(())
        }));
        self.backend.census.rests(self.generation);
        result.unwrap_or_else(|payload| panic::resume_unwind(payload))
    }
}

/// What an anchored plugin lives in.
struct Ground {
    generation: u64,
    census: Census,
    script: Script,
    backend: Values,
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a payload panics on purpose");
    }
}

impl KeepAlive for Ground {
    fn release(self: Box<Self>) -> Release {
        self.census.released(self.generation);
        self.backend.act(&self.script, "release").expect("a release can hang or panic, not fail");
        Release::Freed
    }
}

fn wait_until(holds: impl Fn() -> bool, rest: impl Fn()) {
    while !holds() {
        rest();
    }
}

fn parse(bytes: &[u8]) -> Result<Script, BoxError> {
    let mut words = std::str::from_utf8(bytes)?.split_whitespace();
    let mut word = |what: &str| words.next().ok_or(format!("the artifact has no {what}"));
    let name = word("name")?.to_owned();
    let version = match word("version")? {
        "-" => None,
        version => Some(version.parse()?),
    };
    let answer = word("answer")?.parse()?;
    let rest: Vec<_> = words.collect();
    let steps = rest.iter().filter_map(|word| word.split_once('='));
    Ok(Script {
        name,
        version,
        answer,
        flags: rest.iter().filter(|word| !word.contains('=')).map(|word| (*word).to_owned()).collect(),
        steps: steps.map(|(step, what)| (step.to_owned(), what.to_owned())).collect(),
    })
}

/// Panics that a test asks for would only clutter its output.
fn silence_deliberate_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.payload_as_str().is_some_and(|text| text.ends_with("on purpose")) {
                usual(info);
            }
        }));
    });
}

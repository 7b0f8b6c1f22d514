//! Ten thousand modules of wasm-smith go through admission as a slot does it, and what it admits is opened: everything is
//! served or refused for a reason that has a type.
//!
//! `fuzz/run 0 modules` runs it and shows the counts; MODULES=N sets how many, SEED=N where they begin.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use hotslot::wasm::{CallLimits, Engine, ModuleError, WasmBackend, WasmPlugin};
use hotslot::{Backend, ErrorKind, HotSlot, Payload, Stage};
use hotslot_fuzz_modules::{Kind, module};

/// The pass over a module takes microseconds for each KB of it. This is a thousand times what was seen, and in processor
/// time, so that it fails if the pass grows faster than the module and not if the machine is busy.
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Counts {
    admitted: u32,
    refused: BTreeMap<String, u32>,
    opened: u32,
    loaded: u32,
    not_loaded: BTreeMap<String, u32>,
    panics: Vec<u64>,
    /// Processor time, bytes and seed.
    slowest: (Duration, usize, u64),
    slowest_load: (Duration, usize, u64),
}

#[test]
fn ten_thousand_modules_are_admitted_or_refused_by_a_reason() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (modules, first) = (number("MODULES", 10_000), number("SEED", 0));
    let engine = Engine::builder().max_instances(4).build().expect("the engine starts");
    // Some starts never end; those that do are done long before.
    let limits = CallLimits { deadline: Duration::from_millis(300), ..CallLimits::default() };
    let backend = Arc::new(engine.bind(|_| Ok(())).call_limits(limits));
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    for seed in first..first + modules {
        let (kind, bytes) = module(seed);
        // To compile all of the large ones would take longer than all the rest.
        let is_opened = kind != Kind::Large || seed / 4 % 4 == 3;
        let counts = counts.entry(format!("{kind:?}")).or_default();
        if catch_unwind(AssertUnwindSafe(|| counts.add(&backend, seed, &bytes, is_opened))).is_err() {
            counts.panics.push(seed);
        }
    }
    for (kind, counts) in &counts {
        counts.print(kind);
    }
    let panics: Vec<u64> = counts.values().flat_map(|counts| counts.panics.clone()).collect();
    let total = |count: fn(&Counts) -> u32| counts.values().map(count).sum::<u32>();
    let (admitted, refused) = (total(|it| it.admitted), total(|it| it.refused.values().sum()));
    let opened = total(|it| it.opened);
    let (loaded, not_loaded) = (total(|it| it.loaded), total(|it| it.not_loaded.values().sum()));
    println!(
        "{modules} modules: {admitted} admitted (of {opened} that were opened, {loaded} serve, and {not_loaded} fail by their own start), {refused} refused, \
         {} panics",
        panics.len()
    );
    assert!(panics.is_empty(), "seeds: {panics:?}");
    assert_eq!(u64::from(admitted + refused), modules);
    assert_eq!(loaded + not_loaded, opened);
    for (kind, Counts { slowest: (time, bytes, seed), .. }) in &counts {
        assert!(*time < LONGEST, "{kind}: the pass over {bytes} bytes of seed {seed} took {time:?}");
    }
    // Neither is the whole, or the modules would show nothing.
    assert!(modules < 1_000 || (admitted > refused / 10 && refused > admitted / 10), "{admitted} {refused}");
}

impl Counts {
    fn add(&mut self, backend: &Arc<WasmBackend<WasmPlugin<()>>>, seed: u64, bytes: &[u8], is_opened: bool) {
        let payload = Payload::new(bytes);
        let began = processor_time();
        let verdict = backend.admit(&payload);
        self.slowest = self.slowest.max((processor_time() - began, bytes.len(), seed));
        let inspected = hotslot::inspect(bytes);
        if let Err(error) = verdict {
            let reason = error.downcast_ref::<ModuleError>().unwrap_or_else(|| panic!("seed {seed}: {error}"));
            assert_is_printable(&error.to_string(), seed);
            *self.refused.entry(name(reason)).or_default() += 1;
            return;
        }
        self.admitted += 1;
        let inspection = inspected.unwrap_or_else(|error| panic!("seed {seed}: admitted, and not inspected: {error}"));
        for text in inspection.imports.iter().chain(&inspection.exports) {
            assert_is_printable(text, seed);
        }
        if !is_opened {
            return;
        }
        self.opened += 1;
        // Compiled and instantiated, start function included.
        let began = process_time();
        let opened = HotSlot::builder(Arc::clone(backend)).open(bytes);
        self.slowest_load = self.slowest_load.max((process_time() - began, bytes.len(), seed));
        match opened {
            Ok(_) => self.loaded += 1,
            Err(error) => {
                assert_eq!(error.stage(), Stage::Load, "seed {seed}: {error}");
                let ErrorKind::Refused(reason) = error.kind() else { panic!("seed {seed}: {error}") };
                assert_is_printable(&reason.to_string(), seed);
                *self.not_loaded.entry(shortened(&reason.to_string())).or_default() += 1;
            }
        }
    }

    fn print(&self, kind: &str) {
        let (refused, not_loaded): (u32, u32) = (self.refused.values().sum(), self.not_loaded.values().sum());
        println!("{kind}: {} admitted, {refused} refused", self.admitted);
        for (reason, count) in &self.refused {
            println!("  {count:6} {reason}");
        }
        println!("  of {} that were opened, {} serve, and {not_loaded} fail when they start", self.opened, self.loaded);
        for (reason, count) in &self.not_loaded {
            println!("  {count:6} {reason}");
        }
        for (what, (time, bytes, seed)) in
            [("admission", self.slowest), ("load, all threads of the process", self.slowest_load)]
        {
            println!("  slowest {what}: {time:.3?} of processor time for {bytes} bytes, seed {seed}");
        }
    }
}

/// The kind of a refusal, and what there is too much of.
fn name(error: &ModuleError) -> String {
    match error {
        ModuleError::Limit { what, .. } => format!("Limit: {what}"),
        ModuleError::Proposal { reason, .. } => format!("Proposal: {}", shortened(reason)),
        other => {
            let text = format!("{other:?}");
            text.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
        }
    }
}

/// The beginning of a sentence, without what differs from module to module.
fn shortened(text: &str) -> String {
    let words = text.split([':', '(', '`', ',']).next().unwrap_or_default();
    words.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit())).collect::<Vec<_>>().join(" ")
}

fn assert_is_printable(text: &str, seed: u64) {
    assert_eq!(hotslot::escape_untrusted(text), text, "seed {seed}");
}

fn processor_time() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn process_time() -> Duration {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn clock(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place lives for the call.
    assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut time) }, 0);
    Duration::new(time.tv_sec.try_into().expect("it is positive"), time.tv_nsec.try_into().expect("it is positive"))
}

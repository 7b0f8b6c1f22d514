//! Admits untrusted bytes: must return a verdict, and must not read beyond them.
//!
//! `fuzz/run` generates the seeds and runs it.
#![no_main]

use hotslot::native::{Library, Native, NativePlugin, Trust};
use hotslot::{Backend, Payload};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let payload = Payload::new(bytes);
    // SAFETY: nothing is loaded.
    let trust = unsafe { Trust::assume() };
    let plugins = Native::named_interface("fixture/1", trust).dangerous().allow_panic_abort();
    if let Ok(admission) = Backend::<NativePlugin>::admit(&plugins, &payload) {
        let manifest = admission.manifest();
        assert_eq!(manifest.interface.as_deref(), Some("fixture/1"));
        assert_eq!(hotslot::escape_untrusted(&manifest.name), manifest.name);
    }
    let _ = hotslot::inspect(bytes);
    // SAFETY: the binder is never called: admission does not load the library.
    let raw = unsafe { Native::raw(|_: &Library| Ok(())) }.require(["HOTSLOT_PLUGIN", "answer"]);
    let _ = raw.admit(&payload);
});

//! What an image asks of the loader is read and judged before any of it runs: real libraries, made by real linkers.

mod system;

use hotslot::native::{Library, Native, RawNative};

type Answer = unsafe extern "C" fn() -> i32;

/// A backend for libraries with a function `answer`.
fn answers() -> RawNative<Answer> {
    // SAFETY: the fixtures' constructors are harmless, and the type is that in C.
    unsafe { Native::raw(|library: &Library| Ok(library.get("answer")?)) }
}

//! The exports of the plugin, and what it says of itself in sections of its own.
//!
//! The border is plain numbers: the host writes bytes into the buffer and calls with their length; what comes back is a
//! number, and a reason as the address and length of text in the plugin's memory.

use std::cell::{RefCell, UnsafeCell};

use serde::Serialize;
use waf_request::Request;

use crate::{Config, Waf};

/// The most that one call takes, request or rule file.
const CAPACITY: usize = 1 << 20;

/// `len` is larger than the buffer.
const TOO_LONG: i32 = -1;
/// The bytes are not a request.
const MALFORMED: i32 = -2;
/// The rule file is not used; the rules stay as they were.
const REFUSED: i32 = -3;

/// What the host writes into. It is static so that a fresh instance does not have to fill it with zeros.
struct Buffer(UnsafeCell<[u8; CAPACITY]>);

// SAFETY: the module has no threads: wasm32-unknown-unknown without the atomics feature cannot start one.
unsafe impl Sync for Buffer {}

static BUFFER: Buffer = Buffer(UnsafeCell::new([0; CAPACITY]));

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

#[derive(Default)]
struct State {
    waf: Waf,
    reason: String,
}

/// The address of a buffer that holds at least `len` bytes, or 0 if there is none. The address never changes.
// SAFETY: no other symbol of this module has this name.
#[unsafe(no_mangle)]
extern "C" fn input_buffer(len: u32) -> u32 {
    if len as usize <= CAPACITY { BUFFER.0.get() as u32 } else { 0 }
}

/// Inspects the request in the buffer: 0 allow, 1 block, 2 challenge, 3 log; negative if it could not be read.
// SAFETY: no other symbol of this module has this name.
#[unsafe(no_mangle)]
extern "C" fn inspect_request(len: u32) -> i32 {
    with_input(len, |state, input| {
        let request = Request::decode(input).map_err(|error| (MALFORMED, error.to_string()))?;
        let decision = state.waf.inspect(&request);
        let reason = decision.reason.as_ref().map(serde_json::to_string).transpose();
        state.reason = reason.ok().flatten().unwrap_or_default();
        Ok(decision.verdict.code())
    })
}

/// Takes the rule file in the buffer into use: 0, or negative if it is refused, and then [`reason`] says why.
// SAFETY: no other symbol of this module has this name.
#[unsafe(no_mangle)]
extern "C" fn configure(len: u32) -> i32 {
    with_input(len, |state, input| {
        let config = Config::parse(input).and_then(|config| Waf::new(&config));
        state.waf = config.map_err(|error| (REFUSED, error.to_string()))?;
        Ok(0)
    })
}

/// Why the last call answered as it did: the address of JSON in the upper half, its length in the lower; 0 if there is
/// nothing to say. Valid until the next call.
// SAFETY: no other symbol of this module has this name.
#[unsafe(no_mangle)]
extern "C" fn reason() -> u64 {
    STATE.with_borrow(|state| match state.reason.len() {
        0 => 0,
        length => (state.reason.as_ptr() as u64) << 32 | length as u64,
    })
}

/// What [`reason`] says when a call failed.
#[derive(Serialize)]
struct Failure {
    error: String,
}

fn with_input(len: u32, call: impl FnOnce(&mut State, &[u8]) -> Result<i32, (i32, String)>) -> i32 {
    STATE.with_borrow_mut(|state| {
        state.reason.clear();
        let result = if len as usize <= CAPACITY {
            // SAFETY: the buffer is that long, and nothing writes to it during a call: only the host does, between calls.
            call(state, unsafe { std::slice::from_raw_parts(BUFFER.0.get().cast::<u8>(), len as usize) })
        } else {
            Err((TOO_LONG, format!("{len} bytes are more than the buffer's {CAPACITY}")))
        };
        result.unwrap_or_else(|(code, error)| {
            state.reason = serde_json::to_string(&Failure { error }).unwrap_or_default();
            code
        })
    })
}

/// A text as the array that a section needs.
const fn section<const N: usize>(text: &str) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(text.as_bytes());
    out
}

const PACKAGE_VERSION: &str = env!("CARGO_PKG_VERSION");
const PACKAGE_MANIFEST: &str = "name=universal-waf\ninterface=waf/1\n";

// SAFETY: a custom section that tools read and nothing runs; its content is plain bytes.
#[used]
#[unsafe(link_section = "version")]
static VERSION: [u8; PACKAGE_VERSION.len()] = section(PACKAGE_VERSION);

// SAFETY: a custom section that hotslot reads and nothing runs; its content is plain bytes.
#[used]
#[unsafe(link_section = "hotslot.manifest")]
static MANIFEST: [u8; PACKAGE_MANIFEST.len()] = section(PACKAGE_MANIFEST);

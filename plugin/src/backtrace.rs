//! The backtrace of a panic, on its way from the panic hook to the shim that catches the panic.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

/// The most backtraces that wait: a panic that no shim catches leaves one behind.
const WAITING: usize = 16;
/// The most frames that are kept of one.
const FRAMES: usize = 64;

/// Those that wait, by their threads. A thread-local that frees memory would keep the library mapped.
static WAITING_TRACES: Mutex<Vec<(u64, String)>> = Mutex::new(Vec::new());

/// Captures where the panicking thread is, if `RUST_BACKTRACE` asks for it.
pub(crate) fn capture() -> Option<String> {
    let backtrace = Backtrace::capture();
    (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string())
}

/// Keeps the backtrace of the panic that is beginning.
pub(crate) fn keep(backtrace: &str) {
    let text = frames(backtrace);
    let mut waiting = WAITING_TRACES.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.retain(|(thread, _)| *thread != this_thread());
    if waiting.len() == WAITING {
        waiting.remove(0);
    }
    waiting.push((this_thread(), text));
}

/// Takes the one that this thread kept.
pub(crate) fn take() -> Option<String> {
    let mut waiting = WAITING_TRACES.lock().unwrap_or_else(PoisonError::into_inner);
    let at = waiting.iter().position(|(thread, _)| *thread == this_thread())?;
    Some(waiting.swap_remove(at).1)
}

fn this_thread() -> u64 {
    static LAST: Mutex<u64> = Mutex::new(0);
    thread_local! { static NUMBER: Cell<u64> = const { Cell::new(0) }; }
    if NUMBER.get() == 0 {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        NUMBER.set(*last);
    }
    NUMBER.get()
}

/// Writes the frames between the panic's own and the shim's in one line, because a host escapes line breaks.
fn frames(backtrace: &str) -> String {
    let mut frames: Vec<String> = Vec::new();
    for line in backtrace.lines().map(str::trim) {
        match (line.strip_prefix("at "), line.split_once(": ")) {
            (Some(place), _) => {
                if let Some(frame) = frames.last_mut() {
                    *frame += &format!(" ({place})");
                }
            }
            (None, Some((number, function))) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                frames.push(function.to_owned());
            }
            _ => {}
        }
    }
    // The panic itself, and what brought it here.
    let begin =
        frames.iter().rposition(|frame| frame.starts_with("core::panicking::") || frame.contains("begin_panic"));
    let end = frames.iter().position(|frame| frame.contains("hotslot_plugin::shim::"));
    let (begin, end) = (begin.map_or(0, |at| at + 1), end.unwrap_or(frames.len()));
    let shown = frames.get(begin..end).filter(|shown| !shown.is_empty()).unwrap_or(&frames);
    let shown: Vec<&str> = shown.iter().take(FRAMES).map(String::as_str).collect();
    format!("backtrace: {}", shown.join(" < "))
}

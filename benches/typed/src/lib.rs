//! A plugin that does as little as possible, so that the overhead of the call is measured. The same functions are also
//! exported with a plain C ABI, to be called by hand.

use hotslot_bench_interface::{Bench, Point, Request};

#[derive(Default)]
struct Nothing;

impl Bench for Nothing {
    fn nothing(&self) {}

    fn length(&self, bytes: &[u8]) -> u64 {
        bytes.len() as u64
    }

    fn mirrored(&self, point: Point) -> Point {
        Point { x: point.y, y: point.x }
    }

    fn headers(&self, request: &Request) -> u32 {
        request.headers.len() as u32
    }
}

hotslot_plugin::export!(Nothing as Bench);

#[unsafe(no_mangle)]
extern "C" fn raw_nothing() {}

#[unsafe(no_mangle)]
unsafe extern "C" fn raw_headers(data: *const u8, length: usize) -> u32 {
    // SAFETY: whoever calls it by hand lends so many bytes for the call.
    let bytes = unsafe { std::slice::from_raw_parts(data, length) };
    let request: Request = postcard::from_bytes(bytes).expect("it is a request");
    request.headers.len() as u32
}

#[unsafe(no_mangle)]
extern "C" fn raw_length(_: *const u8, length: usize) -> u64 {
    length as u64
}

//! Request ids: unique over nodes and restarts, and cheap.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::HeaderValue;

pub struct RequestIds {
    /// Drawn at the start of the node.
    node: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub fn new() -> RequestIds {
        RequestIds { node: rand::random(), next: AtomicU64::new(1) }
    }

    /// The next id: the node's number and the request's, in hexadecimal digits.
    pub fn next(&self) -> HeaderValue {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("{:016x}-{request:x}", self.node)).expect("hexadecimal digits")
    }
}

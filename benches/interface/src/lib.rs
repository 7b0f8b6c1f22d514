//! The measured interface: a call that does nothing, one with bytes, one with a plain struct, one with a serde type.

use hotslot_plugin::{Plain, Schema, interface};
use serde::{Deserialize, Serialize};

/// A plain struct.
#[derive(Clone, Copy, Debug, PartialEq, Plain)]
pub struct Point {
    /// The abscissa.
    pub x: f64,
    /// The ordinate.
    pub y: f64,
}

/// A serde type: a typical HTTP request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Schema)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// Returns a request of typical size.
    pub fn ordinary() -> Request {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Request {
            method: "GET".to_owned(),
            path: "/products/42?currency=EUR".to_owned(),
            headers: vec![
                header("host", "shop.example.com"),
                header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
                header("accept", "text/html,application/xhtml+xml"),
                header("accept-language", "en-US,en;q=0.5"),
            ],
        }
    }
}

/// The measured interface.
#[interface(version = "1.0")]
pub trait Bench {
    /// Does nothing.
    fn nothing(&self);
    /// Returns the number of bytes.
    fn length(&self, bytes: &[u8]) -> u64;
    /// Swaps the coordinates.
    fn mirrored(&self, point: Point) -> Point;
    /// Returns the number of headers.
    fn headers(&self, request: &Request) -> u32;
}

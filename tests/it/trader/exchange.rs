//! The exchange that the trader brings along, seen from outside: what it was asked for, and orders to fail.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value as Json;

pub(crate) struct Exchange(SocketAddr);

impl Exchange {
    /// The exchange that this line tells of, if it does.
    pub(crate) fn in_notice(line: &str) -> Option<Exchange> {
        let (_, rest) = line.split_once("REPLAY: synthetic prices from http://")?;
        Some(Exchange(rest.split(' ').next()?.parse().ok()?))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0)
    }

    /// How often a path was asked for.
    pub(crate) fn requests(&self, path: &str) -> u64 {
        self.ask("GET /replay/requests")[path].as_u64().unwrap_or(0)
    }

    /// Lets the next requests fail: with an HTTP status, or with a `drop` of the connection.
    pub(crate) fn fail(&self, with: &str, times: u64) {
        assert_eq!(self.ask(&format!("POST /replay/fail?with={with}&times={times}")), serde_json::json!({}));
    }

    /// Lets the next requests succeed.
    pub(crate) fn recover(&self) {
        self.fail("drop", 0);
    }

    fn ask(&self, what: &str) -> Json {
        let mut stream = TcpStream::connect(self.0).unwrap();
        write!(stream, "{what} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.0).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer}"));
        serde_json::from_str(body).unwrap()
    }
}

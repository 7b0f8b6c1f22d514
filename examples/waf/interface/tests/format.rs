//! What is written is read back, and nothing that is read can go wrong.

use proptest::prelude::*;
use waf_interface::{DecodeError, FieldTooLong, Request, Verdict, encode};

type Pair<'a> = (&'a [u8], &'a [u8]);

const HEADERS: [Pair<'static>; 2] = [(b"Host", b"example.com"), (b"X-Empty", b"")];

fn sample() -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, b"POST", b"/search?q=1", HEADERS, b"body \xff").unwrap();
    bytes
}

#[test]
fn a_request_is_read_back_as_it_was_written() {
    let bytes = sample();
    let request = Request::decode(&bytes).unwrap();
    assert_eq!(request.method, b"POST");
    assert_eq!(request.target, b"/search?q=1");
    assert!(request.headers().eq(HEADERS));
    assert_eq!(request.body, b"body \xff");
}

#[test]
fn a_request_takes_the_place_of_the_one_before() {
    let mut bytes = vec![0xff; 1000];
    encode(&mut bytes, b"POST", b"/search?q=1", HEADERS, b"body \xff").unwrap();
    assert_eq!(bytes, sample());
}

#[test]
fn a_request_cut_anywhere_is_refused() {
    let mut bytes = sample();
    for cut in 0..bytes.len() {
        assert_eq!(Request::decode(&bytes[..cut]), Err(DecodeError::Truncated));
    }
    bytes.push(0);
    assert_eq!(Request::decode(&bytes), Err(DecodeError::TrailingBytes));
}

#[test]
fn another_version_is_refused() {
    assert_eq!(Request::decode(&[2, 0, 0]), Err(DecodeError::Version));
}

#[test]
fn a_field_that_is_too_long_is_refused() {
    let method = vec![b'A'; 70_000];
    assert_eq!(encode(&mut Vec::new(), &method, b"/", [], b""), Err(FieldTooLong));
    let headers = std::iter::repeat_n((&b"a"[..], &b"b"[..]), 70_000);
    assert_eq!(encode(&mut Vec::new(), b"GET", b"/", headers, b""), Err(FieldTooLong));
}

#[test]
fn the_stronger_of_two_verdicts_is_the_greater() {
    let mut verdicts = Verdict::ALL;
    verdicts.sort();
    assert_eq!(verdicts.map(Verdict::name), ["allow", "log", "challenge", "block"]);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic_and_what_is_accepted_writes_the_same_bytes(
        mut bytes in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..80),
        honest_version in any::<bool>(),
    ) {
        if let (true, Some(first)) = (honest_version, bytes.first_mut()) {
            *first = waf_interface::VERSION;
        }
        if let Ok(request) = Request::decode(&bytes) {
            let mut again = Vec::new();
            encode(&mut again, request.method, request.target, request.headers(), request.body).unwrap();
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn any_request_survives(
        method in proptest::collection::vec(any::<u8>(), 0..8),
        target in proptest::collection::vec(any::<u8>(), 0..40),
        headers in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..8), proptest::collection::vec(any::<u8>(), 0..20)), 0..6),
        body in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let pairs: Vec<Pair<'_>> = headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        let mut bytes = Vec::new();
        encode(&mut bytes, &method, &target, pairs.iter().copied(), &body).unwrap();
        let request = Request::decode(&bytes).unwrap();
        prop_assert_eq!(request.method, &method[..]);
        prop_assert_eq!(request.target, &target[..]);
        prop_assert!(request.headers().eq(pairs));
        prop_assert_eq!(request.body, &body[..]);
    }
}

//! What is written is read back, and nothing that is read can go wrong.

use proptest::prelude::*;
use waf_request::{DecodeError, EncodeError, Request, encode};

type Pair<'a> = (&'a [u8], &'a [u8]);

const HEADERS: [Pair<'static>; 2] = [(b"Host", b"example.com"), (b"X-Empty", b"")];

fn sample(buffer: &mut [u8]) -> Result<usize, EncodeError> {
    encode(buffer, b"POST", b"/search?q=1", HEADERS, b"body \xff")
}

#[test]
fn a_request_is_read_back_as_it_was_written() {
    let mut buffer = [0; 128];
    let length = sample(&mut buffer).unwrap();
    let request = Request::decode(&buffer[..length]).unwrap();
    assert_eq!(request.method, b"POST");
    assert_eq!(request.target, b"/search?q=1");
    assert!(request.headers().eq(HEADERS));
    assert_eq!(request.body, b"body \xff");
}

#[test]
fn a_buffer_that_is_too_small_is_refused_at_every_length() {
    let mut buffer = [0; 128];
    let length = sample(&mut buffer).unwrap();
    for short in 0..length {
        assert_eq!(sample(&mut buffer[..short]), Err(EncodeError::BufferTooSmall));
    }
}

#[test]
fn a_request_cut_anywhere_is_refused() {
    let mut buffer = [0; 128];
    let length = sample(&mut buffer).unwrap();
    for cut in 0..length {
        assert_eq!(Request::decode(&buffer[..cut]), Err(DecodeError::Truncated));
    }
    assert_eq!(Request::decode(&buffer[..=length]), Err(DecodeError::TrailingBytes));
}

#[test]
fn another_version_is_refused() {
    assert_eq!(Request::decode(&[2, 0, 0]), Err(DecodeError::Version));
}

#[test]
fn a_field_that_is_too_long_is_refused() {
    let method = vec![b'A'; 70_000];
    assert_eq!(encode(&mut vec![0; 80_000], &method, b"/", [], b""), Err(EncodeError::FieldTooLong));
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic_and_what_is_accepted_writes_the_same_bytes(
        mut bytes in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..80),
        honest_version in any::<bool>(),
    ) {
        if let (true, Some(first)) = (honest_version, bytes.first_mut()) {
            *first = waf_request::VERSION;
        }
        if let Ok(request) = Request::decode(&bytes) {
            let mut again = vec![0; bytes.len()];
            let length = encode(&mut again, request.method, request.target, request.headers(), request.body).unwrap();
            prop_assert_eq!(&again[..length], &bytes[..]);
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
        let mut buffer = vec![0; 4096];
        let length = encode(&mut buffer, &method, &target, pairs.iter().copied(), &body).unwrap();
        let request = Request::decode(&buffer[..length]).unwrap();
        prop_assert_eq!(request.method, &method[..]);
        prop_assert_eq!(request.target, &target[..]);
        prop_assert!(request.headers().eq(pairs));
        prop_assert_eq!(request.body, &body[..]);
    }
}

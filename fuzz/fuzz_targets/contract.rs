//! Parses untrusted contracts: what parses must be printable as it is, and must parse again to the same contract.
//!
//! `fuzz/run` generates the seeds and runs it.
#![no_main]

use hotslot::host::Contract;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| match Contract::parse(bytes) {
    Ok(contract) => {
        let text = contract.to_string();
        assert!(text.lines().all(|line| hotslot::escape_untrusted(line) == line));
        assert_eq!(Contract::parse(text.as_bytes()), Ok(contract));
    }
    Err(error) => {
        let text = error.to_string();
        assert_eq!(hotslot::escape_untrusted(&text), text);
    }
});

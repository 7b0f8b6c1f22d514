//! What a request may cost. Nothing stops the engine while it works, so that what would take it long is not put to it.

use std::time::{Duration, Instant};

use waf_interface::Verdict;

use crate::support::{EXAMPLE, Sent, rules};

/// Fragments that the engine's detectors, transformations and patterns have the most to do with.
const FRAGMENTS: [&str; 12] =
    ["'", "';", "a'or'", "<", "<a ", "%25", "%26#x41;", "/*", "../", "$(", "union select ", "\\u0041"];

/// Prints what requests of fragments cost that keep the limits, each time twice as long up to the most tokens. Beyond the limits, it
/// is a look at their lengths, whatever they are made of.
#[test]
fn what_keeps_the_limits_is_put_to_the_engine_and_what_is_too_much_is_decided_without_it() {
    let rules = rules(EXAMPLE);
    println!("{:<16} {:>8} {:>8} {:>8}", "ms for KiB", 4, 8, 15);
    for fragment in FRAGMENTS {
        let times: Vec<Duration> = [4, 8, 15]
            .iter()
            .map(|size| {
                let body = fragment.repeat((size << 10) / fragment.len());
                let began = Instant::now();
                let decision = Sent::post("text/plain", body.as_bytes()).asked(&rules);
                let took = began.elapsed();
                assert_ne!(decision.reason.unwrap_or_default().rule, "limits-exceeded", "{size} KiB of {fragment}");
                took
            })
            .collect();
        let shown: Vec<_> = times.iter().map(|time| format!("{:>8.1}", time.as_secs_f64() * 1e3)).collect();
        println!("{fragment:<16} {}", shown.join(" "));
    }
    for too_much in ["a&".repeat(300_000), "'".repeat(600_000)] {
        let decision = Sent::post("application/x-www-form-urlencoded", too_much.as_bytes()).asked(&rules);
        assert_eq!((decision.verdict, &*decision.reason.unwrap().rule), (Verdict::Block, "limits-exceeded"));
    }
}

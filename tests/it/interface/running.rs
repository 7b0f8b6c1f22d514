//! Plugins of a declared interface that run by themselves, and hand their state over.

use std::sync::mpsc::{Sender, channel};

use hotslot::native::Native;
use hotslot::{Backend, HotSlot, Runner, transfer_state};
use hotslot_fixture_interface::v1_0::Fixture;

use super::{built, modules};
use crate::support::{PATIENCE, trust};

/// Runs one version after the other, and gives the counts that were sent.
fn counts(backend: impl Backend<dyn Fixture>, first: Vec<u8>, second: Vec<u8>, sent: std::sync::mpsc::Receiver<u64>) {
    let slot = HotSlot::builder(backend).hand_over(transfer_state).open(first).unwrap();
    let runner = Runner::start(slot).unwrap();
    let next = || sent.recv_timeout(PATIENCE).expect("it counts");
    assert_eq!((next(), next(), next()), (1, 2, 3));
    let report = runner.reload(second).unwrap();
    assert!(report.is_swap() && report.gap.is_some());
    // Whatever was on its way when the first one stopped: no number is missing, and none comes twice.
    let mut last = 3;
    for _ in 0..50 {
        let count = next();
        assert_eq!(count, last + 1);
        last = count;
    }
    drop(runner.stop());
}

fn take(sender: Sender<u64>) -> impl Fn(&[u8]) + Send + Sync {
    move |message| {
        let text = std::str::from_utf8(message).expect("it sends text");
        let count = text.strip_prefix("count ").expect("it counts").parse().expect("a number");
        // The test may have seen enough.
        let _ = sender.send(count);
    }
}

#[test]
fn a_library_counts_on_where_the_one_before_stopped() {
    let (sender, sent) = channel();
    let take = take(sender);
    let backend = Native::interface::<dyn Fixture>(trust()).on_message(move |_, message| take(message));
    let image = || built::library("");
    counts(backend, image().bytes(), image().version("1.1.0").bytes(), sent);
}

#[test]
fn a_module_counts_on_where_the_one_before_stopped() {
    let Some(module) = built::module("") else { return };
    let (sender, sent) = channel();
    let take = take(sender);
    let backend = modules::<dyn Fixture>().on_message(move |_, message| take(message));
    counts(backend, module.clone().bytes(), module.version("1.1.0").bytes(), sent);
}

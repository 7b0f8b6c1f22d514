//! Whole fleets in a test: nodes, leaders and a store with all that befalls them, driven by a seed.
//!
//! `SEEDS=10000 cargo test --release -p waf-rollout` tries more seeds of each profile than a plain run does: about 20 seconds a
//! profile, on two processors. A failure names the seed; the same seed gives the same run.

mod world;

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use waf_rollout::Phase;
use world::{Mistake, Outcome, Profile, run};

/// How many seeds a profile is tried with.
fn seeds(profile: &Profile) -> u64 {
    let seeds = std::env::var("SEEDS").ok().and_then(|it| it.parse().ok()).unwrap_or(500);
    if profile.nodes > 9 { seeds / 4 } else { seeds }
}

#[derive(Default)]
struct Sum {
    done: u64,
    aborted: u64,
    events: u64,
    swaps: u64,
    repairs: u64,
    failed: Vec<(u64, String)>,
}

fn sweep(profile: &Profile, mistake: Option<Mistake>, seeds: u64) -> Sum {
    let (next, sum) = (AtomicU64::new(0), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let outcome = run(seed, profile, mistake);
                    let mut sum = sum.lock().unwrap();
                    match outcome {
                        Ok(Outcome { phase, events, swaps, repairs }) => {
                            sum.done += u64::from(phase == Phase::Done);
                            sum.aborted += u64::from(phase == Phase::Abort);
                            sum.events += events;
                            sum.swaps += swaps;
                            sum.repairs += repairs;
                        }
                        Err(why) => sum.failed.push((seed, why)),
                    }
                }
            });
        }
    });
    let mut sum = sum.into_inner().unwrap();
    sum.failed.sort();
    sum
}

/// Runs a profile and expects that no seed breaks an invariant.
fn holds(profile: Profile) -> Sum {
    let (seeds, start) = (seeds(&profile), Instant::now());
    let sum = sweep(&profile, None, seeds);
    println!(
        "{}: {seeds} seeds, {} broke an invariant; {} done, {} aborted; {} swaps, {} repairs, {} events in {:.1?}",
        profile.name,
        sum.failed.len(),
        sum.done,
        sum.aborted,
        sum.swaps,
        sum.repairs,
        sum.events,
        start.elapsed()
    );
    assert!(sum.failed.is_empty(), "{}: {:#?}", profile.name, &sum.failed[..sum.failed.len().min(5)]);
    sum
}

/// Runs a profile with a planted mistake and expects that a seed shows it.
fn is_noticed(mistake: Mistake, profile: Profile) {
    for seeds in [100, 400, 1600] {
        if let Some((seed, why)) = sweep(&profile, Some(mistake), seeds).failed.first() {
            println!("{mistake:?} in {}: seed {seed}: {why}", profile.name);
            return;
        }
    }
    panic!("{mistake:?} breaks no invariant in {}", profile.name);
}

#[test]
fn a_calm_fleet_takes_every_release() {
    let sum = holds(Profile::calm(8));
    assert_eq!(sum.aborted, 0, "nothing was wrong");
}

#[test]
fn faults_do_not_leave_a_fleet_mixed() {
    let sum = holds(Profile::faulty(8));
    assert!(sum.done > sum.aborted, "most rollouts survive faults");
}

#[test]
fn a_larger_fleet_survives_faults() {
    holds(Profile::faulty(50));
}

#[test]
fn a_release_that_half_of_the_fleet_refuses_is_never_committed() {
    let sum = holds(Profile::refused(50));
    assert_eq!((sum.done, sum.swaps), (0, 0));
}

#[test]
fn a_release_that_fails_its_probation_stops_at_the_canary() {
    let sum = holds(Profile::poisoned(50));
    assert_eq!(sum.done, 0);
}

/// A wave is all the nodes below a position: one that was away when it was chosen may join the canary.
#[test]
fn a_release_that_fails_its_probation_is_stopped_among_faults_too() {
    let sum = holds(Profile { name: "fails probation everywhere, and faults", faults: true, ..Profile::poisoned(8) });
    assert_eq!(sum.done, 0);
}

#[test]
fn a_release_that_some_nodes_cannot_bear_is_stopped() {
    holds(Profile::sickly(50));
    holds(Profile::sickly_and_faulty(50));
}

#[test]
fn a_release_that_fails_more_calls_stops_at_the_canary() {
    let sum = holds(Profile::erring(50));
    assert_eq!(sum.done, 0);
}

#[test]
fn a_canary_without_traffic_is_never_promoted() {
    let sum = holds(Profile::idle(8));
    assert_eq!(sum.done, 0, "no data is no success");
}

#[test]
fn a_store_that_loses_writes_sends_nobody_back() {
    holds(Profile::forgetful_and_deaf(8));
    let sum = holds(Profile::forgetful(8));
    assert!(sum.repairs > 0, "the leader notices");
}

#[test]
fn a_store_that_comes_back_empty_sends_nobody_back() {
    let sum = holds(Profile::wiped(8));
    assert!(sum.repairs > 0, "the leader notices");
}

#[test]
fn a_leader_that_ends_again_and_again_leaves_the_lead_to_another() {
    let sum = holds(Profile::crash_looping(8));
    assert_eq!(sum.aborted, 0, "nothing was wrong with the release");
    let sum = holds(Profile {
        name: "half refuse, and a leader ends again and again",
        refuse_per_mille: 500,
        ..Profile::crash_looping(50)
    });
    assert_eq!((sum.done, sum.swaps), (0, 0));
    holds(Profile { name: "faults, and a leader ends again and again", faults: true, ..Profile::crash_looping(8) });
}

#[test]
fn commands_in_every_phase_end_in_one_release() {
    holds(Profile::commanded(8));
}

#[test]
fn a_release_for_a_label_reaches_its_nodes_and_no_others() {
    let sum = holds(Profile::calm(9).labelled());
    assert_eq!(sum.aborted, 0, "nothing was wrong");
    holds(Profile::faulty(9).labelled());
    holds(Profile::faulty(50).labelled());
}

#[test]
fn a_group_that_stops_at_its_canary_leaves_the_others_alone() {
    let sum = holds(Profile::poisoned(50).labelled());
    assert_eq!(sum.done, 0);
    let sum = holds(Profile::erring(50).labelled());
    assert_eq!(sum.done, 0);
    holds(Profile::sickly_and_faulty(50).labelled());
}

#[test]
fn groups_survive_commands_and_a_store_that_forgets() {
    holds(Profile::commanded(9).labelled());
    holds(Profile::forgetful(9).labelled());
    holds(Profile::forgetful_and_deaf(9).labelled());
    holds(Profile::wiped(9).labelled());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let profile = Profile::forgetful(50);
    assert_eq!(format!("{:?}", run(42, &profile, None)), format!("{:?}", run(42, &profile, None)));
}

#[test]
fn planted_mistakes_are_noticed() {
    is_noticed(Mistake::NoStep, Profile::faulty(8));
    is_noticed(Mistake::NoTerm, Profile::forgetful_and_deaf(8));
    is_noticed(Mistake::NoCondemnation, Profile::sickly_and_faulty(50));
    is_noticed(Mistake::FailuresOfTheFleet, Profile::sickly(50));
    is_noticed(Mistake::NoMemory, Profile::faulty(8));
    is_noticed(Mistake::AbortsForgotten, Profile::forgetful_and_deaf(8));
    is_noticed(Mistake::WritesWithoutRevision, Profile::faulty(8));
    is_noticed(Mistake::LabelsIgnored, Profile::calm(9).labelled());
    is_noticed(Mistake::GroupsForgotten, Profile::calm(9).labelled());
    is_noticed(Mistake::ResumesEachTime, Profile::crash_looping(8));
}

/// Prints what a fleet of ten thousand costs: `ci/fleet` writes it into the documentation.
#[test]
#[ignore = "prints a cost, and proves nothing that the others do not"]
fn ten_thousand_nodes() {
    println!("| 10,000 nodes, simulated | ended | events | swaps | took |\n|---|---|---|---|---|");
    for profile in [Profile::calm(10_000), Profile::faulty(10_000), Profile::faulty(10_000).labelled()] {
        let start = Instant::now();
        let Outcome { phase, events, swaps, .. } = run(1, &profile, None).unwrap();
        let name = if profile.labels { "faults, to one label and then another" } else { profile.name };
        println!("| {name} | {phase:?} | {events} | {swaps} | {:.1?} |", start.elapsed());
    }
}

//! FAULTS 31: reloads and rollbacks at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use hyper::StatusCode;
use serde_json::Value;

use crate::support::{Module, Node};

const UPLOADERS: u32 = 4;
const UPLOADS: u32 = 10;

#[tokio::test]
async fn reloads_and_rollbacks_at_the_same_time_make_one_line_of_history() {
    let node = Arc::new(Node::configured(&Module::new("1.0.0"), "[waf.wasm]\nkeep_previous_versions = 4"));
    let stop = Arc::new(AtomicBool::new(false));
    let (theirs, stopped) = (Arc::clone(&node), Arc::clone(&stop));
    let traffic = tokio::spawn(async move {
        while !stopped.load(Relaxed) {
            assert_eq!(theirs.get("/").await.status, StatusCode::OK);
        }
    });
    let uploaders: Vec<_> = (0..UPLOADERS)
        .map(|uploader| {
            let node = Arc::clone(&node);
            tokio::spawn(async move {
                let mut successes = 0;
                for upload in 0..UPLOADS {
                    let module = Module::new("1.0.0").salted(1 + uploader * UPLOADS + upload);
                    successes += outcome(&node.upload(&module.bytes()).await);
                }
                successes
            })
        })
        .collect();
    // For as long as there are uploads.
    let rollers: Vec<_> = (0..2)
        .map(|_| {
            let (node, stopped) = (Arc::clone(&node), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut successes = 0;
                while !stopped.load(Relaxed) {
                    successes += outcome(&node.roll_back().await);
                }
                successes
            })
        })
        .collect();
    let mut successes = 0;
    for uploader in uploaders {
        successes += uploader.await.unwrap();
    }
    stop.store(true, Relaxed);
    for roller in rollers {
        successes += roller.await.unwrap();
    }
    traffic.await.unwrap();

    let history = node.admin("/api/v1/wasm/history").await;
    let mut swaps: Vec<&Value> =
        history["reloads"].as_array().unwrap().iter().filter(|reload| reload["success"] == true).collect();
    swaps.reverse();
    assert_eq!(swaps.len(), 1 + successes, "the start, and what was answered as a success");
    for pair in swaps.windows(2) {
        assert_eq!(pair[1]["previous_generation"], pair[0]["generation"], "{history:#}");
    }
    let triggers: Vec<_> = swaps.iter().map(|swap| swap["trigger"].as_str().unwrap()).collect();
    assert!(triggers.contains(&"upload") && triggers.contains(&"rollback"), "{triggers:?}");
    let (version, last) = (node.version().await, swaps[swaps.len() - 1]);
    assert_eq!((&version["generation"], &version["digest"]), (&last["generation"], &last["digest"]));

    // And what serves is what the node starts on.
    let digest = version["digest"].clone();
    let Ok(node) = Arc::try_unwrap(node) else { panic!("the tasks have ended") };
    let node = node.kill().start();
    assert_eq!(node.version().await["digest"], digest);
}

/// 1 for a success; if it is none, it has to be a conflict that names its stage.
fn outcome(answer: &crate::support::Answer) -> usize {
    let json = answer.json();
    match answer.status {
        StatusCode::OK => {
            assert_eq!(json["success"], true);
            1
        }
        StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS => {
            assert!(["gate", "commit"].contains(&json["stage"].as_str().unwrap()), "{json}");
            0
        }
        status => panic!("{status}: {json}"),
    }
}

//! FAULTS 14 to 16: modules that want more than they may have, of memory, of tables, of stack, of the compiler.

use futures_util::future::join_all;
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::support::node::Folder;
use crate::support::{Module, Node, request};

#[cfg(target_os = "linux")]
use crate::support::cage::Cage;

const OK: StatusCode = StatusCode::OK;
const DOWN: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// It is not time that ends a bomb here.
const PATIENT: &str = "[waf.wasm.limits]\ndeadline_milliseconds = 60000";

/// So large a body that the node sets a thread aside for its inspection: bombs in such bodies go off at the same time.
async fn post_large(node: &Node, word: &str) -> StatusCode {
    let body = format!("{}{word}", " ".repeat(20 << 10));
    request(node.data, Method::POST, "/echo").body(body).send().await.status
}

async fn takes_the_next_module(node: &Node) {
    let answer = node.upload(&Module::new("2.0.0").bytes()).await;
    assert_eq!(answer.status, OK, "{}", answer.text());
    assert_eq!(node.version().await["version"], "2.0.0");
    assert_eq!(node.get("/").await.status, OK);
}

#[tokio::test]
async fn a_memory_bomb_is_denied_its_memory_and_the_failure_policy_answers() {
    for (policy, status) in [("closed", DOWN), ("open", OK), ("last_good", OK)] {
        let node = Node::configured(
            &Module::new("1.0.0"),
            &format!("[waf]\nfailure_policy = \"{policy}\"\nuninspected = \"log\"\n{PATIENT}"),
        );
        assert_eq!(node.upload(&Module::new("1.1.0").always('m').bytes()).await.status, OK);
        for _ in 0..10 {
            assert_eq!(node.get("/").await.status, status, "{policy}");
        }
        let errors = node.admin("/api/v1/wasm/errors").await;
        assert_eq!(errors["errors"].as_array().unwrap().len(), 10);
        assert_eq!(errors["errors"][0]["kind"], "memory");
        let text = errors["errors"][0]["error"].as_str().unwrap();
        assert!(text.contains("more memory than its limit of 16777216 bytes"), "{text}");
        takes_the_next_module(&node).await;
    }
}

#[tokio::test]
async fn bombs_hit_nobody_but_the_request_that_carries_them() {
    let node = Node::configured(&Module::new("1.0.0"), PATIENT);
    // Memory that a module does without is no failure.
    for (letter, status, kind, words) in [
        ('m', DOWN, "memory", "more memory than its limit"),
        ('g', OK, "", ""),
        ('e', DOWN, "memory", "a larger table than its limit"),
        ('r', DOWN, "trap", "stack"),
    ] {
        let bombs = async {
            for _ in 0..20 {
                assert_eq!(node.get(&format!("/?do={letter}")).await.status, status, "{letter}");
            }
        };
        let others = async {
            for _ in 0..50 {
                assert_eq!(node.get("/").await.status, OK);
                assert_eq!(node.get("/?do=b").await.status, StatusCode::FORBIDDEN);
            }
        };
        tokio::join!(bombs, others);
        if status == DOWN {
            let error = node.admin("/api/v1/wasm/errors").await["errors"][0].clone();
            assert_eq!(error["kind"], json!(kind));
            assert!(error["error"].as_str().unwrap().contains(words), "{error}");
        }
    }
    takes_the_next_module(&node).await;
}

#[cfg(target_os = "linux")]
const CAGE: u64 = 512 << 20;

/// A node in a cage with the memory that its limits promise to stay within, and some for itself.
#[cfg(target_os = "linux")]
fn caged(cage: &Cage, memory: u64) -> Node {
    let limits = format!("{PATIENT}\nmemory_bytes = {memory}\nconcurrent_calls = 16");
    let node = Folder::new(&Module::new("1.0.0"), &limits).start_as(|command| cage.around(command));
    assert_eq!(cage.processes(), [node.id()]);
    node
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_memory_of_the_node_is_bounded_under_concurrent_bombs() {
    let cage = match Cage::new("bounded", CAGE) {
        Ok(cage) => cage,
        Err(reason) => {
            eprintln!("skipped: there can be no memory control group here: {reason}");
            return;
        }
    };
    let node = caged(&cage, 16 << 20);
    // Calls beyond those that are allowed at a time get no verdict either.
    let target = &node;
    let bombs = |word| join_all((0..200).map(move |_| post_large(target, word)));
    assert!(bombs("do=m").await.iter().all(|status| *status == DOWN));
    let errors = node.admin("/api/v1/wasm/errors").await;
    assert!(errors["errors"].as_array().unwrap().iter().any(|error| error["kind"] == "memory"), "{errors}");
    // These keep what they got until their instance goes.
    let statuses = bombs("do=g").await;
    assert!(statuses.contains(&OK) && statuses.iter().all(|status| [OK, DOWN].contains(status)), "{statuses:?}");
    let peak = peak(node.id());
    assert!(peak < CAGE, "{peak} bytes");
    takes_the_next_module(&node).await;
    assert_eq!((cage.processes(), cage.kills()), (vec![node.id()], 0));
}

/// What the test before would see if nothing were denied.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_bomb_that_is_denied_nothing_would_end_the_node() {
    let Ok(cage) = Cage::new("unbounded", CAGE) else {
        eprintln!("skipped: there can be no memory control group here");
        return;
    };
    let mut node = caged(&cage, 4 << 30);
    let answer = request(node.data, Method::GET, "/?do=m").try_send().await;
    assert!(answer.is_err(), "the node answered {}", answer.unwrap().status);
    assert!(!node.ended().success());
    assert!(cage.kills() > 0);
}

/// The most memory that a process had at a time.
#[cfg(target_os = "linux")]
fn peak(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Valid modules that a compiler would need gigabytes and half a minute for.
#[tokio::test]
async fn a_compile_bomb_is_refused_before_the_compiler_and_the_limit_is_named() {
    let node = Node::start(&Module::new("1.0.0"));
    let functions = "(func)".repeat(50_000);
    let body = "(drop (i32.const 1))".repeat(200_000);
    let nested = format!("{}{}", "(block ".repeat(10_000), ")".repeat(10_000));
    let locals = "(local i32)".repeat(40_000);
    let compiled = node.folder.compiled();
    for (text, complaint) in [
        (format!("(module {functions})"), "50000 functions are more than the 20000 allowed"),
        (format!("(module (func {body}))"), "bytes of code are more than the 262144 allowed"),
        (format!("(module (func {nested}))"), "nested blocks are more than the 256 allowed in function 0"),
        (format!("(module (func {locals}))"), "locals are more than the 5000 allowed in function 0"),
    ] {
        let bomb = wat::parse_str(&text).unwrap();
        let others = async {
            for _ in 0..20 {
                assert_eq!(node.get("/").await.status, OK);
            }
        };
        let (answer, ()) = tokio::join!(node.upload(&bomb), others);
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        let answer = answer.json();
        assert_eq!((&answer["stage"], &answer["current_version"]), (&json!("admit"), &json!("1.0.0")));
        assert!(answer["error"].as_str().unwrap().contains(complaint), "{answer}");
    }
    assert_eq!(node.folder.compiled(), compiled, "the compiler has seen none of it");
    takes_the_next_module(&node).await;
}

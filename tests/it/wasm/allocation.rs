//! Where the memory of instances comes from, also where address space is short.

use std::process::Command;

use hotslot::HotSlot;
use hotslot::wasm::{Allocation, Engine, WasmCallError};

use super::{answer, backend, module};

#[test]
fn an_engine_has_a_pool_where_it_can() {
    let status = super::engine().status();
    assert!(matches!(status.allocation, Allocation::Pooled { .. }), "{status:?}");
    let status = Engine::builder().on_demand().build().unwrap().status();
    assert_eq!((status.allocation, status.instances, status.max_instances), (Allocation::OnDemand, 0, 192));
}

/// Everything that an instance can do, without a pool.
fn works_on_demand(engine: &Engine) {
    assert_eq!(engine.status().allocation, Allocation::OnDemand);
    let slot = HotSlot::builder(backend(engine)).open(module("1.0.0", 1)).unwrap();
    let lease = slot.load();
    for _ in 0..10 {
        assert_eq!(lease.call(|calls, call| call.run(&calls.grow, 100)).unwrap(), 1);
        assert_eq!(lease.call(|calls, call| call.run(&calls.count, ())).unwrap(), 1, "a fresh instance");
    }
    let error = lease.call(|calls, call| call.run(&calls.grow, 2000)).unwrap_err();
    assert!(matches!(error, WasmCallError::OutOfMemory { .. }), "{error}");
    let error = lease.call(|calls, call| call.run(&calls.recurse, ())).unwrap_err();
    assert!(matches!(error, WasmCallError::Trapped { .. }), "{error}");
    slot.reload(module("2.0.0", 2)).unwrap();
    assert_eq!(answer(&slot.load()).unwrap(), 2);
}

#[test]
fn an_engine_works_on_demand() {
    works_on_demand(&Engine::builder().max_instances(4).on_demand().build().unwrap());
}

/// The same in a process that may not have the address space for a pool.
#[cfg(target_os = "linux")]
#[test]
fn an_engine_goes_without_a_pool_where_address_space_is_refused() {
    const INSIDE: &str = "HOTSLOT_TEST_LITTLE_ADDRESS_SPACE";
    if std::env::var_os(INSIDE).is_some() {
        works_on_demand(&Engine::new().unwrap());
        return;
    }
    let name = std::thread::current().name().unwrap().to_owned();
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 4000000 && exec \"$0\" --exact \"$1\" --nocapture --test-threads 1"])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

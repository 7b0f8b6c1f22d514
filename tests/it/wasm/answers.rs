//! Answers that grow when they are read. FAULTS 71.

use hotslot::HotSlot;
use hotslot::wasm::CallLimits;
use hotslot_plugin::{CallError, CallErrorKind, Interface};

use super::{compile, engine, limits};

/// What a small answer can claim to be a lot of.
#[hotslot_plugin::interface(version = "1.0")]
pub trait Bulk {
    /// Texts, which are a byte each if they are empty.
    fn lines(&self) -> Vec<String>;
    /// Values without a size.
    fn units(&self) -> Vec<()>;
}

/// A module that answers with `len` bytes: `count` as postcard writes it, and zeros.
fn answering(count: u32, len: u32) -> Vec<u8> {
    let mut number = count;
    let mut prefix = String::new();
    while number >= 0x80 {
        prefix += &format!("\\{:02x}", number as u8 | 0x80);
        number >>= 7;
    }
    prefix += &format!("\\{number:02x}");
    let contract = <dyn Bulk as Interface>::CONTRACT.escape_default();
    compile(&format!(
        r#"(module (@custom "hotslot.contract" "{contract}")
          (memory (export "memory") 1020) (data (i32.const 65536) "{prefix}")
          (func (export "hotslot_create") (param i32) (result i64) (i64.const 0))
          (func (export "hotslot_room") (param i32) (result i32) (i32.const 1024))
          (func (export "hotslot_give") (param i32) (result i32) (i32.const 0))
          (func (export "hotslot_run") (result i64) (i64.const 0))
          (func (export "hotslot_invoke") (param i32 i32) (result i32)
            (i32.store offset=16 (local.get 1) (i32.const 65536))
            (i32.store offset=20 (local.get 1) (i32.const {len}))
            (i32.const 0)))"#
    ))
}

fn slot(count: u32, len: u32) -> HotSlot<dyn Bulk> {
    let backend = engine().interface::<dyn Bulk>().call_limits(limits());
    HotSlot::builder(backend).open(answering(count, len)).unwrap()
}

#[test]
fn an_answer_is_bounded_in_bytes_and_in_what_it_becomes() {
    let lines = |slot: &HotSlot<dyn Bulk>| CallError::catch(|| slot.load().lines().len());
    let units = |slot: &HotSlot<dyn Bulk>| CallError::catch(|| slot.load().units().len());
    let small = slot(3, 4);
    assert_eq!((lines(&small), units(&slot(3, 1))), (Ok(3), Ok(3)));
    for (slot, bytes) in [(slot(60 << 20, 60 << 20), "longer than"), (slot(30 << 20, (30 << 20) + 4), "too large")] {
        let error = lines(&slot).unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Malformed, "{error}");
        assert!(error.to_string().contains(bytes), "{error}");
        assert_eq!(slot.status().serving.unwrap().failures, 1, "it is the plugin's fault");
    }
    let error = units(&slot(u32::MAX, 5)).unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Malformed, "{error}");
}

#[test]
fn the_limit_of_an_answer_can_be_set() {
    let limits = CallLimits { answer: 3, ..limits() };
    let backend = engine().interface::<dyn Bulk>().call_limits(limits);
    let slot = HotSlot::builder(backend).open(answering(3, 4)).unwrap();
    let error = CallError::catch(|| slot.load().lines()).unwrap_err();
    assert!(error.to_string().contains("`CallLimits::answer`"), "{error}");
}

#[test]
fn a_plugin_that_cannot_be_created_for_a_call_is_at_fault_and_rolled_back() {
    // `create` asks the host for a number, and fails if it is not 0.
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let backend = engine().interface::<dyn Bulk>().call_limits(limits()).link(|linker| {
        let count = std::sync::Arc::clone(&count);
        let next = move || count.load(std::sync::atomic::Ordering::Relaxed);
        linker.func_wrap("env", "next", next).map(drop)
    });
    let probation = hotslot::Probation::new(crate::support::PATIENCE).max_failures(0);
    let slot = HotSlot::builder(backend.unwrap()).keep_previous(1).probation(probation).open(answering(3, 4)).unwrap();
    let contract = <dyn Bulk as Interface>::CONTRACT.escape_default().to_string();
    slot.reload(compile(&CREATE.replace("CONTRACT", &contract))).unwrap();
    count.store(1, std::sync::atomic::Ordering::Relaxed);
    let error = CallError::catch(|| slot.load().lines()).unwrap_err();
    assert!(error.kind().is_fault() && error.to_string().contains("cannot be created"), "{error:?}");
    crate::support::eventually("it is rolled back", || CallError::catch(|| slot.load().lines()).is_ok());
}

const CREATE: &str = r#"(module (@custom "hotslot.contract" "CONTRACT")
  (import "env" "next" (func $next (result i32)))
  (memory (export "memory") 1) (data (i32.const 16) "no")
  (func (export "hotslot_create") (param i32) (result i64)
    (if (result i64) (call $next) (then (i64.const 0x10_00000002)) (else (i64.const 0))))
  (func (export "hotslot_room") (param i32) (result i32) (i32.const 1024))
  (func (export "hotslot_give") (param i32) (result i32) (i32.const 0))
  (func (export "hotslot_run") (result i64) (i64.const 0))
  (func (export "hotslot_invoke") (param i32 i32) (result i32) (i32.const 0)))"#;

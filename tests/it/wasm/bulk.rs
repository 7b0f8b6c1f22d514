//! How long a single instruction can take: nothing ends it, so a call can overrun its deadline by that much.

use std::time::{Duration, Instant};

use hotslot::HotSlot;
use hotslot::wasm::{Binder, CallLimits, CallOptions, Func, InstancePolicy, WasmCallError};

use super::{compile, engine, limits};

/// One function for each instruction that works on as much as the default limits allow.
const BULK: &[(&str, &str)] = &[
    ("memory.fill", "(memory.fill (i32.const 0) (local.get 0) (i32.const 0x2000000))"),
    ("memory.copy, forwards", "(memory.copy (i32.const 0) (i32.const 1) (i32.const 0x1ffffff))"),
    ("memory.copy, backwards", "(memory.copy (i32.const 1) (i32.const 0) (i32.const 0x1ffffff))"),
    ("memory.copy, halves", "(memory.copy (i32.const 0x1000000) (i32.const 0) (i32.const 0x1000000))"),
    ("memory.init", "(memory.init $data (i32.const 0) (i32.const 0) (i32.const 4000000))"),
    ("memory.grow", "(drop (memory.grow (i32.const 0)))"),
    ("table.fill", "(table.fill $table (i32.const 0) (ref.func $f) (i32.const 5000))"),
    ("table.copy", "(table.copy $table $table (i32.const 0) (i32.const 1) (i32.const 4999))"),
    ("table.init", "(table.init $table $elements (i32.const 0) (i32.const 0) (i32.const 5000))"),
    ("table.grow", "(drop (table.grow $other (ref.func $f) (i32.const 9999)))"),
];

fn module(body: &str, pages: u32) -> Vec<u8> {
    let (data, elements) = ("x".repeat(4_000_000), "$f ".repeat(5_000));
    compile(&format!(
        r#"(module
          (memory (export "memory") {pages})
          (table $table 5000 funcref) (table $other 1 funcref)
          (data $data "{data}") (elem $elements func {elements}) (elem declare func $f)
          (func $f (export "f"))
          (func (export "run") (param i32) {body}))"#
    ))
}

/// Processor time of this thread: what it waits for a processor says nothing of the instruction.
fn processor_time() -> Duration {
    // SAFETY: the kernel fills a value of this function.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time);
        time
    };
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

fn bind(binder: &mut Binder<'_>) -> Result<Func<u32, ()>, WasmCallError> {
    binder.func("run")
}

#[test]
#[ignore = "prints what the longest instructions take: run it alone"]
fn what_single_instructions_cost() {
    assert_eq!((CallLimits::default().memory, CallLimits::default().table_elements), (32 << 20, 10_000));
    for (name, body) in BULK {
        for (memory, policy) in [("fresh", InstancePolicy::Fresh), ("used", InstancePolicy::Single)] {
            let backend = engine().bind(bind).call_limits(limits()).instance_policy(policy);
            let slot = HotSlot::builder(backend).open(module(body, 512)).unwrap();
            let mut times: Vec<Duration> = (0..7)
                .map(|_| {
                    let run = slot.load().call(|run, call| {
                        let began = processor_time();
                        call.run(run, 7)?;
                        Ok(processor_time() - began)
                    });
                    run.unwrap()
                })
                .collect();
            times.sort();
            println!("{name:<24} {memory:<6} median {:>10.3?} longest {:>10.3?}", times[3], times[6]);
        }
    }
    // And what it makes of a deadline: as many as fit, and then the one that is under way.
    let body = "(loop $again (memory.fill (i32.const 0) (local.get 0) (i32.const 0x2000000)) (br $again))";
    let slot = HotSlot::builder(engine().bind(bind)).open(module(body, 512)).unwrap();
    let deadline = Duration::from_millis(100);
    let mut over: Vec<Duration> = (0..7)
        .map(|_| {
            let began = Instant::now();
            let options = CallOptions::new().deadline(deadline);
            let error = slot.load().call_with(&options, |run, call| call.run(run, 7)).unwrap_err();
            assert!(matches!(error, WasmCallError::DeadlineExceeded(_)), "{error:?}");
            began.elapsed().saturating_sub(deadline)
        })
        .collect();
    over.sort();
    println!("beyond the deadline: median {:.3?}, longest {:.3?}", over[3], over[6]);
}

/// What no instruction of the defaults can work on, however it is put together.
#[test]
fn no_instruction_reaches_beyond_the_default_limits() {
    let backend = || engine().bind(bind);
    for (body, pages) in [("", 513), ("(drop (table.grow $other (ref.func $f) (i32.const 0)))", 513)] {
        let error = HotSlot::builder(backend()).open(module(body, pages)).unwrap_err().to_string();
        assert!(error.contains("bytes of memory from the start are more than the 33554432 allowed"), "{error}");
    }
    let default = CallLimits { deadline: limits().deadline, ..CallLimits::default() };
    let grow = "(if (i32.ne (table.grow $other (ref.func $f) (i32.const 10000)) (i32.const -1)) (then unreachable))
        (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))";
    let slot = HotSlot::builder(backend().call_limits(default)).open(module(grow, 512)).unwrap();
    slot.load().call(|run, call| call.run(run, 7)).expect("both are refused to the plugin");
}

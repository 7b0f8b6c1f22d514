//! The host as a plugin sees it. FAULTS 17, 48.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use hotslot::wasm::wasmtime::{self, Caller};
use hotslot::wasm::{Func, StoreData, WasmCallError, guest_bytes};
use hotslot::{
    Admission, Artifact, Backend, BoxError, ErrorKind, HotSlot, LoadContext, Loaded, Payload, PluginScope, Stage,
};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use super::{compile, engine};
use crate::support::Latch;

/// A plugin whose `run` does `body`, with a text at address 16 and 1 MiB of memory.
fn runs(imports: &str, text: &str, body: &str) -> Vec<u8> {
    compile(&format!(
        r#"(module {imports} (memory (export "memory") 16) (data (i32.const 16) "{text}")
          (@custom "version" "1.2.3") (@custom "hotslot.manifest" "name=talker")
          (func (export "run") (result i64) {body}))"#
    ))
}

const LOG: &str = r#"(import "hotslot" "log" (func $log (param i32 i32 i32)))"#;

type Run = Func<(), u64>;

fn bind(binder: &mut hotslot::wasm::Binder<'_>) -> Result<Run, WasmCallError> {
    binder.func("run")
}

/// Writes down what is logged, with its fields.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(Level, String)>>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "hotslot::plugin"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                self.0 += &format!("{field}={value:?};");
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push((*event.metadata().level(), line.0));
    }
}

#[test]
fn what_a_plugin_logs_arrives_with_its_name_and_without_its_escape_codes() {
    let body = "(call $log (i32.const 2) (i32.const 16) (i32.const 8))
                (call $log (i32.const 5) (i32.const 16) (i32.const 1))
                (call $log (i32.const 3) (i32.const 0) (i32.const 1048576))
                (i64.const 0)";
    let plugin = runs(LOG, r"hot\1b[2J\0a", body);
    let slot = HotSlot::builder(engine().bind(bind)).name("speaker").open(plugin).unwrap();
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        slot.load().call(|run, call| call.run(run, ())).unwrap();
    });
    let lines = log.0.lock().unwrap();
    let (level, line) = &lines[0];
    assert_eq!(*level, Level::WARN);
    for part in
        ["message=hot\\u{1b}[2J\\u{a};", "slot=speaker;", "generation=1;", "plugin=\"talker\";", "version=1.2.3;"]
    {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert_eq!(lines[1].0, Level::TRACE);
    assert!(lines[2].1.len() < 80_000 && lines[2].1.contains('…'), "a long text is cut");
}

#[test]
fn a_plugin_that_logs_in_a_loop_does_not_fill_the_hosts_log() {
    let body = r#"(local $left i32) (local.set $left (i32.const 20000))
      (loop $again (call $log (i32.const 3) (i32.const 16) (i32.const 5))
        (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))) (i64.const 0)"#;
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        let backend = engine().bind(bind).call_limits(super::limits());
        let slot = HotSlot::builder(backend).open(runs(LOG, "flood", body)).unwrap();
        let began = std::time::Instant::now();
        slot.load().call(|run, call| call.run(run, ())).unwrap();
        let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
        let lines = log.0.lock().unwrap();
        let written = lines.iter().filter(|(_, line)| line.contains("message=flood")).count();
        assert!((500..=500 * seconds).contains(&written), "{written} in {seconds} s");
        assert!(
            lines.iter().any(|(level, line)| *level == Level::WARN && line.contains("more than 500 lines a second"))
        );
    });
}

#[test]
fn a_text_outside_of_the_plugins_memory_ends_the_call() {
    let plugin = runs(LOG, "", "(call $log (i32.const 1) (i32.const -1) (i32.const 2)) (i64.const 0)");
    let slot = HotSlot::builder(engine().bind(bind)).open(plugin).unwrap();
    let error = slot.load().call(|run, call| call.run(run, ())).unwrap_err();
    let WasmCallError::Host(reason) = &error else { panic!("{error:?}") };
    assert!(reason.contains("0xffffffff"), "{reason}");
}

#[test]
fn what_a_plugin_gives_to_the_host_that_it_should_not_is_its_fault_and_rolls_it_back() {
    let send = r#"(import "hotslot" "send" (func $send (param i32 i32)))"#;
    let panicked = r#"(import "hotslot" "panicked" (func $panicked (param i32 i32)))"#;
    let service = r#"(import "hotslot" "service" (func $service (param i32 i32 i32 i32) (result i32)))"#;
    let say = r#"(import "env" "say" (func $say (param i32 i32)))"#;
    for (imports, text, body) in [
        (LOG, "", "(call $log (i32.const 1) (i32.const -1) (i32.const 2))"),
        (send, "", "(call $send (i32.const 0x100000) (i32.const 1))"),
        (panicked, "", "(call $panicked (i32.const 16) (i32.const -1))"),
        (service, "", "(drop (call $service (i32.const -8) (i32.const 16) (i32.const 0) (i32.const 0)))"),
        (service, "none", "(drop (call $service (i32.const 16) (i32.const 4) (i32.const 0) (i32.const -4)))"),
        (say, "\\ff\\fe", "(call $say (i32.const 16) (i32.const 2))"),
        (say, "", "(call $say (i32.const -16) (i32.const 2))"),
    ] {
        let backend = engine().bind(bind).link(|linker| {
            let say = |mut caller: Caller<'_, StoreData>, ptr: u32, len: u32| {
                hotslot::wasm::guest_str(&mut caller, ptr, len).map(drop)
            };
            linker.func_wrap("env", "say", say).map(drop)
        });
        let probation = hotslot::Probation::new(crate::support::PATIENCE).max_failures(0);
        let slot = HotSlot::builder(backend.unwrap()).keep_previous(1).probation(probation);
        let slot = slot.open(runs("", "", "(i64.const 7)")).unwrap();
        slot.reload(runs(imports, text, &format!("{body} (i64.const 0)")).as_slice()).unwrap();
        let error = slot.load().call(|run, call| call.run(run, ())).unwrap_err();
        assert!(error.is_fault(), "{body}: {error:?}");
        assert!(matches!(&error, WasmCallError::Host(failure) if failure.is_misuse()), "{body}: {error:?}");
        crate::support::eventually("it is rolled back", || slot.load().call(|run, call| call.run(run, ())).is_ok());
    }
    // A function of the host that fails by itself is not.
    let fails = |linker: &mut wasmtime::Linker<StoreData>| {
        linker.func_wrap("env", "say", |_: u32, _: u32| Err::<(), _>(wasmtime::Error::msg("no"))).map(drop)
    };
    let plugin = runs(say, "", "(call $say (i32.const 0) (i32.const 0)) (i64.const 0)");
    let slot = HotSlot::builder(engine().bind(bind).link(fails).unwrap()).open(plugin).unwrap();
    let error = slot.load().call(|run, call| call.run(run, ())).unwrap_err();
    assert!(matches!(&error, WasmCallError::Host(failure) if !failure.is_misuse()) && !error.is_fault(), "{error:?}");
}

#[test]
fn clocks_tell_the_time() {
    for (clock, least) in [("wall_clock", 1_700_000_000_000_000_000), ("monotonic_clock", 1)] {
        let import = format!(r#"(import "hotslot" "{clock}" (func $clock (result i64)))"#);
        let slot = HotSlot::builder(engine().bind(bind))
            .open(runs(&import, "", "(drop (call $clock)) (call $clock)"))
            .unwrap();
        let mut last = least;
        for _ in 0..3 {
            let now = slot.load().call(|run, call| call.run(run, ())).unwrap();
            assert!(now >= last, "{clock}: {now} after {last}");
            last = now;
        }
    }
}

#[test]
fn a_function_of_the_users_own_knows_who_calls() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let backend = engine()
        .bind(bind)
        .link(|linker| {
            let sink = Arc::clone(&seen);
            linker
                .func_wrap("env", "block", move |mut caller: Caller<'_, StoreData>, ptr: u32, len: u32| {
                    let text = String::from_utf8_lossy(guest_bytes(&mut caller, ptr, len)?).into_owned();
                    let plugin = caller.data().plugin();
                    sink.lock().unwrap().push((plugin.name.clone(), plugin.generation, text));
                    wasmtime::Result::Ok(7_u64)
                })
                .map(drop)
        })
        .unwrap();
    let import = r#"(import "env" "block" (func $block (param i32 i32) (result i64)))"#;
    let slot =
        HotSlot::builder(backend).open(runs(import, "10.0.0.1", "(call $block (i32.const 16) (i32.const 8))")).unwrap();
    assert_eq!(slot.load().call(|run, call| call.run(run, ())).unwrap(), 7);
    assert_eq!(*seen.lock().unwrap(), [("talker".to_owned(), 1, "10.0.0.1".to_owned())]);
}

#[test]
fn a_name_that_is_taken_cannot_be_offered_again() {
    let twice = engine().bind(bind).link(|linker| linker.func_wrap("hotslot", "log", || ()).map(drop));
    assert!(twice.unwrap_err().to_string().contains("log"));
}

/// A function of the host that hangs inside `start`: no deadline of a call ends that, but the reload's does.
#[test]
fn a_load_that_hangs_in_the_host_is_left_behind_and_the_slot_stays_usable() {
    let latch = Arc::new(Latch::default());
    let engine = engine();
    let backend = engine
        .bind(bind)
        .link(|linker| {
            let door = Arc::clone(&latch);
            linker.func_wrap("env", "wait", move || door.pass()).map(drop)
        })
        .unwrap();
    let fine = |version: &str| {
        compile(&format!(
            r#"(module (@custom "version" "{version}") (memory (export "memory") 1)
              (func (export "run") (result i64) (i64.const 1)))"#
        ))
    };
    let hangs = compile(
        r#"(module (import "env" "wait" (func $wait)) (memory (export "memory") 1)
          (start $wait) (func (export "run") (result i64) (i64.const 2)))"#,
    );
    let slot = HotSlot::builder(backend).reload_timeout(Duration::from_secs(3)).open(fine("1.0.0")).unwrap();
    let error = slot.reload(hotslot::Candidate::new(hangs).version("1.1.0".parse().unwrap())).unwrap_err();
    assert!(matches!((error.stage(), error.kind()), (Stage::Load, ErrorKind::TimedOut(_))), "{error}");
    assert_eq!(slot.status().hung, 1);
    slot.reload(fine("1.2.0")).unwrap();
    assert_eq!(slot.load().call(|run, call| call.run(run, ())).unwrap(), 1);
    latch.open();
    let status = slot.close(crate::support::PATIENCE);
    assert_eq!((status.hung, status.retired.len(), engine.status().instances), (0, 0, 0));
}

/// A service that does nothing.
#[hotslot::interface(version = "1.0")]
trait Idle {
    fn idle(&self, bytes: &[u8]);
}

struct Nothing;

impl Idle for Nothing {
    fn idle(&self, _: &[u8]) {}
}

/// What a plugin whose `run` does `body` comes to, beside a service whose contract is at address 16.
fn beside_a_service(body: &str) -> Result<u64, WasmCallError> {
    const IMPORTS: &str = r#"(import "hotslot" "service" (func $service (param i32 i32 i32 i32) (result i32)))
        (import "hotslot" "invoke" (func $invoke (param i32 i32 i32) (result i32)))"#;
    let contract = "interface idle 1.0\\nmethod idle(&[u8])->()\\n";
    let ask = "(drop (call $service (i32.const 16) (i32.const 42) (i32.const 1024) (i32.const 1040)))";
    let module = runs(IMPORTS, contract, &format!("(local $n i32) {} (i64.const 7)", body.replace("ASK", ask)));
    let service: Arc<dyn Idle> = Arc::new(Nothing);
    let backend = engine().bind(bind).service(service).call_limits(super::limits());
    let slot = HotSlot::builder(backend).open(module).unwrap();
    slot.load().call(|run, call| call.run(run, ()))
}

/// Calls the service with `count` arguments, each of them the whole memory.
fn lends(count: u32) -> String {
    format!(
        "ASK
        (loop $next
          (i64.store (i32.add (i32.const 65544) (i32.mul (local.get $n) (i32.const 16))) (i64.const 1048576))
          (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const {count}))))
        (i32.store (i32.const 2048) (i32.const 65536))
        (i32.store (i32.const 2052) (i32.const {count}))
        (drop (call $invoke (i32.const 0) (i32.const 0) (i32.const 2048)))"
    )
}

#[test]
fn a_call_of_a_service_lends_no_more_than_there_is() {
    assert_eq!(beside_a_service(&lends(1)).unwrap(), 7);
    let refused = beside_a_service(&lends(1000)).unwrap_err();
    assert!(format!("{refused:?}").contains("more bytes than"), "{refused:?}");
}

#[test]
fn a_plugin_that_asks_for_services_again_and_again_is_ended() {
    assert_eq!(beside_a_service("ASK ASK").unwrap(), 7);
    let refused = beside_a_service("(loop $again ASK (br $again))").unwrap_err();
    assert!(format!("{refused:?}").contains("again and again"), "{refused:?}");
}

/// A backend that tells which scope its plugins get.
struct Telling<B>(B, Arc<OnceLock<PluginScope>>);

impl<T: ?Sized, B: Backend<T>> Backend<T> for Telling<B> {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        self.0.admit(payload)
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<T>, BoxError> {
        let _ = self.1.set(context.scope.clone());
        self.0.load(artifact, context)
    }
}

/// A service that says whether it is called from inside of the scope.
struct Witness(Arc<OnceLock<PluginScope>>, Arc<AtomicBool>);

impl Idle for Witness {
    fn idle(&self, _: &[u8]) {
        self.1.store(self.0.get().expect("a plugin is loaded").is_entered(), Ordering::SeqCst);
    }
}

#[test]
fn what_a_plugin_calls_in_the_host_runs_inside_of_its_slots_scope() {
    const IMPORTS: &str = r#"(import "hotslot" "service" (func $service (param i32 i32 i32 i32) (result i32)))
        (import "hotslot" "invoke" (func $invoke (param i32 i32 i32) (result i32)))
        (import "hotslot" "send" (func $send (param i32 i32)))
        (import "env" "own" (func $own (result i64)))"#;
    let body = "(drop (call $service (i32.const 16) (i32.const 42) (i32.const 1024) (i32.const 1040)))
        (i32.store (i32.const 2048) (i32.const 65536))
        (i32.store (i32.const 2052) (i32.const 1))
        (drop (call $invoke (i32.const 0) (i32.const 0) (i32.const 2048)))
        (call $send (i32.const 16) (i32.const 1))
        (call $own)";
    let module = runs(IMPORTS, "interface idle 1.0\\nmethod idle(&[u8])->()\\n", body);
    let scope = Arc::new(OnceLock::<PluginScope>::new());
    let [service_inside, message_inside] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let service: Arc<dyn Idle> = Arc::new(Witness(Arc::clone(&scope), Arc::clone(&service_inside)));
    let backend = engine().bind(bind).service(service).call_limits(super::limits());
    let backend = backend.on_message({
        let (scope, inside) = (Arc::clone(&scope), Arc::clone(&message_inside));
        move |_, _| inside.store(scope.get().expect("a plugin is loaded").is_entered(), Ordering::SeqCst)
    });
    let own = Arc::clone(&scope);
    let backend = backend.link(|linker| {
        let scope = Arc::clone(&own);
        linker.func_wrap("env", "own", move || scope.get().map_or(0, |scope| u64::from(scope.is_entered()))).map(drop)
    });
    let slot = HotSlot::builder(Telling(backend.unwrap(), Arc::clone(&scope))).open(module).unwrap();
    let is_inside = || scope.get().expect("a plugin is loaded").is_entered();
    let inside = slot.load().call(|run, call| {
        assert!(!is_inside(), "the caller's own part is not the plugin's");
        call.run(run, ())
    });
    assert_eq!(inside.unwrap(), 1, "a function that the user linked");
    assert!(service_inside.load(Ordering::SeqCst) && message_inside.load(Ordering::SeqCst));
    assert!(!is_inside());
}

/// What ends a call that is too long is the module's code, when it runs again; a function of the host is not cut off.
#[test]
fn a_deadline_waits_for_the_function_of_the_host_and_ends_the_plugins_code_then() {
    let deadline = Duration::from_millis(500);
    let returned = Arc::new(AtomicBool::new(false));
    let backend = engine().bind(bind).link(|linker| {
        let returned = Arc::clone(&returned);
        let outlast = move || {
            std::thread::sleep(3 * deadline);
            returned.store(true, Ordering::Relaxed);
        };
        linker.func_wrap("env", "outlast", outlast).map(drop)
    });
    let import = r#"(import "env" "outlast" (func $outlast))"#;
    let plugin = runs(import, "", "(call $outlast) (loop $again (br $again)) (i64.const 0)");
    let slot = HotSlot::builder(backend.unwrap()).open(plugin).unwrap();
    let options = hotslot::wasm::CallOptions::new().deadline(deadline);
    let began = Instant::now();
    let error = slot.load().call_with(&options, |run, call| call.run(run, ())).unwrap_err();
    assert!(matches!(error, WasmCallError::DeadlineExceeded(_)), "{error}");
    assert!(began.elapsed() < 4 * deadline, "it was given its time again when the function returned");
    assert!(returned.load(Ordering::Relaxed), "the function of the host was left in the middle");
}

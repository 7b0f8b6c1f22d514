//! What goes into a plugin and comes out of it.

use hotslot::wasm::{GuestBuffer, WasmCallError, WasmPlugin};
use hotslot::{HotSlot, Lease, Stage};

use super::{answer, compile, engine, module, slot, source};

#[test]
fn a_plugin_is_loaded_called_and_replaced() {
    let slot = slot();
    let old = slot.load();
    assert_eq!(Lease::version(&old).unwrap().to_string(), "1.0.0");
    assert_eq!((old.manifest().name.as_str(), old.manifest().interface.as_deref()), ("fixture", Some("fixture/1")));
    let report = slot.reload(module("1.1.0", 2)).unwrap();
    assert!(report.is_swap());
    assert_eq!((answer(&old).unwrap(), answer(&slot.load()).unwrap()), (1, 2));
    slot.rollback().unwrap();
    assert_eq!(answer(&slot.load()).unwrap(), 1);
}

#[test]
fn bytes_go_in_and_come_out() {
    let slot = slot();
    let lease = slot.load();
    for len in [0, 1, 1024, 2048] {
        let bytes = vec![7; len];
        let echo = lease.call(|calls, call| {
            let place = call.write(&calls.input, &bytes)?;
            let answer = call.run(&calls.echo, place)?;
            Ok(call.read_packed(answer)?.to_vec())
        });
        assert_eq!(echo.unwrap(), bytes);
    }
}

#[test]
fn a_trap_says_what_and_where() {
    let slot = slot();
    let error = slot.load().call(|calls, call| call.run(&calls.trap, ())).unwrap_err();
    let WasmCallError::Trapped { reason, site, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("unreachable"), "{reason}");
    assert!(site.as_ref().unwrap().starts_with("function 4"), "{site:?}");
    assert_eq!(slot.status().serving.unwrap().failures, 1);
    assert_eq!(answer(&slot.load()).unwrap(), 1, "it costs that instance and nothing else");
}

#[test]
fn bytes_that_do_not_fit_are_refused_before_they_are_written() {
    let slot = slot();
    let lease = slot.load();
    let error = lease.call(|calls, call| call.write(&calls.input, &[7; 2049])).unwrap_err();
    assert!(matches!(error, WasmCallError::InputTooLarge { len: 2049, capacity: 2048 }), "{error}");
    assert!(!error.is_fault());
}

/// A plugin can claim that its answer is anywhere.
#[test]
fn an_answer_outside_of_the_plugins_memory_is_an_error() {
    let slot = slot();
    let lease = slot.load();
    const PAGE: u32 = 65536;
    for (ptr, len) in [(PAGE, 1), (PAGE - 1, 2), (0, PAGE + 1), (u32::MAX, u32::MAX), (u32::MAX, 1), (PAGE + 1, 0)] {
        let error = lease.call(|calls, call| {
            let answer = call.run(&calls.echo, (ptr, len))?;
            call.read_packed(answer).map(<[u8]>::to_vec)
        });
        let Err(WasmCallError::OutOfBounds { ptr: p, len: l }) = error else { panic!("{ptr:#x} {len}: {error:?}") };
        assert_eq!((p, l), (ptr, len));
    }
    for (ptr, len) in [(0, PAGE), (PAGE - 1, 1), (PAGE, 0)] {
        assert_eq!(lease.call(|_, call| Ok(call.read(ptr, len)?.len())).unwrap(), len as usize);
    }
    assert_eq!(slot.status().serving.unwrap().failures, 6, "each of them counts against the plugin");
}

#[test]
fn an_error_of_the_callers_own_comes_back_and_does_not_count() {
    let slot = slot();
    let error = slot.load().call(|_, _| Err::<(), _>(WasmCallError::failed("not today"))).unwrap_err();
    assert_eq!(error.to_string(), "not today");
    assert_eq!(slot.status().serving.unwrap().failures, 0);
}

#[test]
fn a_plugin_that_the_binder_cannot_bind_is_refused_at_load() {
    let slot = slot();
    let text = source("1.1.0", 2, "");
    for (module, reason) in [
        (text.replace("(export \"spin\")", ""), "`spin`"),
        (
            text.replace("(func (export \"trap\") unreachable)", "(func (export \"trap\") (param i64) unreachable)"),
            "`trap`",
        ),
        (text.replace("(memory (export \"memory\") 1)", "(memory 1)"), "not in its memory"),
        (text.replace("0x1000_00000800", "0xffff0000_00000800"), "not in its memory"),
    ] {
        let error = slot.reload(compile(&module)).unwrap_err();
        assert_eq!(error.stage(), Stage::Load, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert_eq!(answer(&slot.load()).unwrap(), 1);
}

/// A plugin that is asked for room for 100 bytes, and answers with `address`.
fn room_at(address: u32) -> Result<HotSlot<WasmPlugin<GuestBuffer>>, hotslot::Error> {
    let backend = engine().bind(|binder| binder.alloc_buffer("room", 100));
    let text = format!(
        r#"(module (memory (export "memory") 1)
          (func (export "room") (param i32) (result i32)
            (if (i32.ne (local.get 0) (i32.const 100)) (then unreachable))
            (i32.const {address})))"#
    );
    HotSlot::builder(backend).open(compile(&text))
}

#[test]
fn a_plugin_gives_as_much_room_as_it_is_asked_for() {
    const END: u32 = 65536;
    for address in [1, 4096, END - 100] {
        let slot = room_at(address).unwrap();
        let lease = slot.load();
        let written = lease.call(|room, call| {
            let (ptr, len) = call.write(room, &[7; 100])?;
            Ok((ptr, call.read(ptr, len)?.to_vec()))
        });
        assert_eq!(written.unwrap(), (address, vec![7; 100]));
        let error = lease.call(|room, call| call.write(room, &[7; 101])).unwrap_err();
        assert!(matches!(error, WasmCallError::InputTooLarge { len: 101, capacity: 100 }), "{error}");
    }
    for (address, reason) in
        [(0, "no room for 100 bytes"), (END - 99, "not in its memory"), (u32::MAX, "not in its memory")]
    {
        let error = room_at(address).map(drop).unwrap_err();
        assert_eq!(error.stage(), Stage::Load, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn a_function_that_an_older_plugin_lacks_is_optional() {
    type Twice = Option<hotslot::wasm::Func<u32, u32>>;
    let backend = engine().bind(|binder| -> Result<Twice, WasmCallError> { binder.optional("twice") });
    let slot = HotSlot::builder(backend).open(module("1.0.0", 1)).unwrap();
    let twice = |lease: &hotslot::Lease<WasmPlugin<Twice>>| {
        lease.call(|twice, call| twice.as_ref().map(|twice| call.run(twice, 21)).transpose()).unwrap()
    };
    assert_eq!(twice(&slot.load()), None);
    let more = r#"(func (export "twice") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2)))"#;
    slot.reload(compile(&source("1.1.0", 1, more))).unwrap();
    assert_eq!(twice(&slot.load()), Some(42));
}

#[test]
fn plugins_and_their_errors_can_go_to_other_threads() {
    fn everywhere<T: Send + Sync + 'static>() {}
    everywhere::<super::Plugin>();
    everywhere::<hotslot::wasm::Engine>();
    everywhere::<hotslot::wasm::WasmBackend<super::Plugin>>();
    everywhere::<WasmCallError>();
    everywhere::<hotslot::wasm::ModuleError>();
    everywhere::<hotslot::wasm::EngineError>();
}

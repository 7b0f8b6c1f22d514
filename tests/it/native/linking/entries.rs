//! Row 58: null entries and wrong counts in a descriptor are refused before `create` is called.

use hotslot::host::{CallError, CallErrorKind};
use hotslot::native::{DescriptorError, NativePlugin};
use hotslot::{Error, HotSlot, Stage};

use super::super::{native, reason};
use super::build;

/// A plugin of which a test replaces parts; its `create` ends the process if it is called.
const PLUGIN: &str = r#"
#include <stdlib.h>
#include "abi.h"
#ifndef CREATED
#define CREATED abort()
#endif
#ifndef OUTPUT
#define OUTPUT {0, 0, 0, 0}
#endif
static const int data[16] = {1};
static int32_t create(const hotslot_host *host, void **instance, hotslot_buffer *error) { CREATED; return 0; }
static int32_t destroy(void *instance) { return 0; }
static int32_t run(const void *instance, const bool *stop, hotslot_buffer *error) { return 1; }
static int32_t call(const void *instance, uint32_t method, hotslot_slice input, hotslot_buffer *output) {
    *output = (hotslot_buffer)OUTPUT;
    return 0;
}
static int32_t save(const void *instance, hotslot_buffer *output) { return 0; }
static int32_t restore(const void *instance, hotslot_slice schema, hotslot_slice state, hotslot_buffer *error) { return 0; }
static int32_t twice(const void *instance, int64_t number, int64_t *out) { return 0; }
static const void *const table[] = {(const void *)twice, FUNCTION};
#ifdef OFF
struct __attribute__((packed)) off { char before; hotslot_descriptor it; };
asm(".globl HOTSLOT_PLUGIN\n.set HOTSLOT_PLUGIN, placed + 1\n.type HOTSLOT_PLUGIN, @object");
__attribute__((section(".hotslot"), used, aligned(16))) struct off placed = { 1, {
#define END }
#else
__attribute__((section(".hotslot"), used)) hotslot_descriptor HOTSLOT_PLUGIN = {
#define END
#endif
    .magic = HOTSLOT_MAGIC, .abi = 1, .size = sizeof(hotslot_descriptor), .panic = 1, .function_count = 2,
    .name = "entries", .version = "1.0.0", .interface = "fixture/1", .schema = "",
    .create = create, .destroy = destroy, .run = run, .call = call, .save = save, .restore = restore, .functions = table,
    CHANGE
} END;
"#;

fn plugin(flags: &[&str]) -> Vec<u8> {
    let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/fixtures");
    let given = |name: &str| flags.iter().any(|flag| flag.starts_with(name));
    let mut all = vec![include, "-w"];
    all.extend(flags);
    if !given("-DFUNCTION") {
        all.push("-DFUNCTION=(const void *)twice");
    }
    if !given("-DCHANGE") {
        all.push("-DCHANGE=");
    }
    build("cc", PLUGIN, &all).expect("a C compiler is needed for the tests")
}

fn open(flags: &[&str]) -> Result<HotSlot<NativePlugin>, Error> {
    HotSlot::builder(native()).open(plugin(flags))
}

#[track_caller]
fn refusal(flags: &[&str]) -> DescriptorError {
    let error = open(flags).expect_err("it was let in");
    reason::<DescriptorError>(&error).clone()
}

/// Row 58.
#[test]
fn row_58_every_null_entry_is_refused_by_name_before_create() {
    for entry in ["create", "destroy", "run", "call", "save", "restore"] {
        let error = refusal(&[&format!("-DCHANGE=.{entry} = 0")]);
        assert_eq!(error, DescriptorError::NullEntry { entry: entry.to_owned() });
    }
    let DescriptorError::NullEntry { entry } = refusal(&["-DCHANGE=.functions = 0"]) else { panic!() };
    assert!(entry.starts_with("functions"), "{entry}");
    assert_eq!(refusal(&["-DFUNCTION=0"]), DescriptorError::NullEntry { entry: "functions[1]".to_owned() });
}

/// Row 58: pointers that lead to no code, or to nothing.
#[test]
fn row_58_wild_pointers_are_refused_before_create() {
    for change in
        [".create = (void *)1", ".destroy = (void *)data", ".call = (void *)0x7fffffffffff", ".save = (void *)-1"]
    {
        let error = refusal(&[&format!("-DCHANGE={change}")]);
        assert!(matches!(error, DescriptorError::OutsideImage { .. }), "{change}: {error}");
    }
    for change in [".functions = (void *)8", ".functions = (void *)-8", ".functions = (void *)(data + 2)"] {
        let error = refusal(&[&format!("-DCHANGE={change}"), "-DFUNCTION=(const void *)data"]);
        assert!(
            matches!(error, DescriptorError::OutsideImage { .. } | DescriptorError::NullEntry { .. }),
            "{change}: {error}"
        );
    }
    let error = refusal(&["-DCHANGE=.functions = (void *)((char *)table + 1)"]);
    assert!(matches!(error, DescriptorError::Misaligned { .. }), "{error}");
}

/// Row 58: counts that no interface has, at admission, and ones that lead out of the image.
#[test]
fn row_58_absurd_counts_are_refused_before_create() {
    for count in [65_537_u32, u32::MAX] {
        let error = open(&[&format!("-DCHANGE=.function_count = {count}u")]).expect_err("it was let in");
        assert_eq!(error.stage(), Stage::Admit);
        assert_eq!(reason::<DescriptorError>(&error), &DescriptorError::FunctionCount { found: count, most: 65_536 });
    }
    let error = refusal(&["-DCHANGE=.function_count = 65536"]);
    assert!(matches!(error, DescriptorError::OutsideImage { .. } | DescriptorError::NullEntry { .. }), "{error}");
}

/// Row 58: a descriptor that nobody may refer to.
#[test]
fn row_58_a_misaligned_descriptor_is_refused_before_it_is_read() {
    let error = refusal(&["-DOFF"]);
    assert_eq!(error, DescriptorError::Misaligned { what: "the descriptor" });
}

/// Row 58: a buffer that cannot be, in `create` and in a call.
#[test]
fn row_58_buffers_that_cannot_be_are_errors() {
    let outputs = ["{0, 5, 5, 0}", "{(uint8_t *)data, -1, -1, 0}", "{(uint8_t *)data, 1ul << 63, 1, 0}"];
    for output in outputs {
        let flag = format!("-DOUTPUT={output}");
        let slot = open(&["-DCREATED=(void)0", &flag]).unwrap();
        let error = slot.load().call(1, b"").unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Malformed, "{output}: {error}");

        let flag = format!("-DCREATED=*error = (hotslot_buffer){output}");
        let error = open(&[&flag]).unwrap_err();
        assert_eq!(reason::<CallError>(&error).kind(), CallErrorKind::Malformed, "{output}: {error}");
    }
}

/// Row 58: the same plugin without a fault.
#[test]
fn row_58_a_sound_descriptor_is_taken() {
    let slot = open(&["-DCREATED=(void)0"]).unwrap();
    assert_eq!(slot.load().call(1, b"").unwrap(), b"");
}

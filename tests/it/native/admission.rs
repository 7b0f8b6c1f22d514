//! What is refused from its bytes alone: nothing that is tried here is ever loaded.

use hotslot::native::{DescriptorError, ImageError, Native, NativePlugin};
use hotslot::{BoxError, Manifest, Stage};
use hotslot_plugin::abi;

use super::fixtures::c_library_for;
use super::{answer, builder, c_answering, c_library, fixture, native, reason};
use crate::support;

fn admit(bytes: &[u8]) -> Result<Manifest, BoxError> {
    support::admit::<NativePlugin>(&native(), bytes)
}

#[track_caller]
fn image_error(bytes: &[u8]) -> ImageError {
    let error = admit(bytes).expect_err("it was let in");
    *error.downcast().unwrap_or_else(|other| panic!("another error: {other}"))
}

#[track_caller]
fn descriptor_error(backend: &Native, bytes: &[u8]) -> DescriptorError {
    let error = support::admit::<NativePlugin>(backend, bytes).expect_err("it was let in");
    *error.downcast().unwrap_or_else(|other| panic!("another error: {other}"))
}

#[test]
fn a_plugin_says_who_it_is_without_being_loaded() {
    let manifest = admit(fixture().name("pricer").version("2.3.4").bytes()).unwrap();
    assert_eq!(manifest.name, "pricer");
    assert_eq!(manifest.version, Some("2.3.4".parse().unwrap()));
    assert_eq!(manifest.interface.as_deref(), Some("fixture/1"));
    assert_eq!(manifest.schema.as_deref(), Some("indicator/1"));
}

/// Row 2.
#[test]
fn an_image_cut_at_any_percent_and_at_any_byte_of_its_headers_is_refused() {
    let whole = fixture().into_bytes();
    let program_headers = 64 + 56 * usize::from(u16::from_le_bytes([whole[56], whole[57]]));
    let section_table = u64::from_le_bytes(whole[40..48].try_into().unwrap()) as usize;
    let percents = (0..100).map(|percent| whole.len() * percent / 100);
    for cut in percents.chain(0..=program_headers).chain(section_table..whole.len()) {
        assert!(admit(&whole[..cut]).is_err(), "cut at {cut} of {}", whole.len());
    }
    assert!(admit(&whole).is_ok());
}

/// Row 2: the same for the smallest plugin there is, byte by byte.
#[test]
fn every_prefix_of_a_small_image_is_refused() {
    let whole = c_library("counter.c", &[]);
    for cut in 0..whole.len() {
        assert!(admit(&whole[..cut]).is_err(), "cut at {cut} of {}", whole.len());
    }
    assert!(admit(&whole).is_ok());
}

/// Row 2: an image need not have a section table, and then only its segments tell that something is missing.
#[test]
fn a_cut_image_without_a_section_table_is_refused_for_its_segments() {
    let mut whole = c_answering(1);
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let headers = &whole[64..64 + 56 * usize::from(whole[56])];
    let end = headers.chunks(56).filter(|header| header[..4] == [1, 0, 0, 0]);
    let end = end.map(|header| number(&header[8..16]) + number(&header[32..40])).max().unwrap() as usize;
    whole[40..48].fill(0);
    whole[58..64].fill(0);
    whole.truncate(end);
    // SAFETY: nothing is loaded.
    let backend = unsafe { Native::raw(|_| Ok(())) };
    assert!(support::admit(&backend, &whole).is_ok());
    for cut in 0..end {
        assert!(support::admit(&backend, &whole[..cut]).is_err(), "cut at {cut} of {end}");
    }
    let error = *support::admit(&backend, &whole[..end - 1]).unwrap_err().downcast().unwrap();
    assert!(matches!(error, ImageError::CutShort { end: said, .. } if said == end as u64), "{error}");
}

/// Row 2: the refusal comes at admission, and the current plugin keeps serving.
#[test]
fn a_truncated_reload_leaves_the_old_plugin_serving() {
    let slot = builder().open(fixture().answering(1)).unwrap();
    let half = fixture().answering(2).into_bytes();
    let error = slot.reload(&half[..half.len() / 2]).unwrap_err();
    assert_eq!(error.stage(), Stage::Admit);
    assert_eq!(error.serving().unwrap().generation, 1);
    assert_eq!(answer(&slot.load()), 1);
    assert_eq!(slot.status().counters.refused, 1);
    assert!(slot.history()[1].stages.iter().all(|(stage, _)| *stage != Stage::Load), "it came as far as the loader");
}

/// Row 3.
#[test]
fn an_image_for_another_machine_is_refused_and_both_are_named() {
    const MACHINE: usize = 18;
    for (machine, name) in [(183u16, "aarch64"), (243, "riscv"), (8, "mips"), (4242, "4242")] {
        let mut image = fixture().into_bytes();
        image[MACHINE..MACHINE + 2].copy_from_slice(&machine.to_le_bytes());
        let ImageError::WrongMachine { image, host } = image_error(&image) else { panic!("not for its machine") };
        assert!(image.contains(name), "{image}");
        assert!(host.contains(std::env::consts::ARCH), "{host}");
    }
}

/// Row 3: word size and byte order.
#[test]
fn an_image_of_another_class_or_byte_order_is_refused() {
    const CLASS: usize = 4;
    const DATA: usize = 5;
    for (at, other) in [(CLASS, 1), (DATA, 2), (CLASS, 0), (DATA, 0), (CLASS, 9)] {
        let mut image = fixture().into_bytes();
        image[at] = other;
        let error = image_error(&image);
        assert!(
            matches!(error, ImageError::WrongMachine { .. } | ImageError::Malformed { .. }),
            "byte {at} = {other}: {error}"
        );
    }
}

/// Row 3: an image that a compiler for another machine made.
#[test]
fn a_cross_compiled_plugin_is_refused_and_both_machines_are_named() {
    if cfg!(target_arch = "aarch64") {
        return println!("skipped: this is the other machine");
    }
    let Some(image) = c_library_for("aarch64-linux-gnu-gcc", "counter.c", &["-nostdlib"]) else {
        return println!("skipped: no aarch64-linux-gnu-gcc here");
    };
    let error = image_error(&image).to_string();
    assert!(error.contains("aarch64") && error.contains(std::env::consts::ARCH), "{error}");
}

/// Row 3: half of the width is a real 32-bit image.
#[test]
fn a_32_bit_plugin_is_refused_and_both_machines_are_named() {
    let mut header = vec![0; 4096];
    header[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    header[16..24].copy_from_slice(&[3, 0, 3, 0, 1, 0, 0, 0]);
    header[40..42].copy_from_slice(&[52, 0]);
    let ImageError::WrongMachine { image, host } = image_error(&header) else { panic!("not for its width") };
    assert!(image.contains("i386") && image.contains("32-bit"), "{image}");
    assert!(host.contains("64-bit"), "{host}");
}

/// Row 5: the entry point is there, and the loader would not find it.
#[test]
fn a_plugin_whose_export_was_stripped_is_refused() {
    let stripped = fixture().without_export(abi::DESCRIPTOR_SYMBOL);
    assert_eq!(image_error(stripped.bytes()), ImageError::NotAPlugin);
    assert_eq!(builder().open(stripped).unwrap_err().stage(), Stage::Admit);
}

/// Row 5: a library, but not a plugin.
#[test]
fn a_library_without_a_descriptor_is_refused() {
    let error = builder().open(c_answering(1)).unwrap_err();
    assert_eq!(error.stage(), Stage::Admit);
    assert_eq!(reason::<ImageError>(&error), &ImageError::NotAPlugin);
    assert!(error.to_string().contains("export!"), "it says what to do: {error}");
}

/// Row 5, for libraries that are bound by hand.
#[test]
fn a_required_symbol_that_is_missing_is_refused_before_the_library_is_loaded() {
    // SAFETY: the binder looks nothing up, and the constructor, which would crash, does not run: that is the test.
    let backend = unsafe { Native::raw(|_| Ok(())) }.require(["answer", "question"]);
    let error = hotslot::HotSlot::builder(backend).open(c_library("constructor.c", &["-DCRASH"])).unwrap_err();
    assert_eq!(error.stage(), Stage::Admit);
    assert_eq!(reason::<ImageError>(&error), &ImageError::MissingSymbol { name: "question".to_owned() });
}

/// Row 6.
#[test]
fn another_interface_is_refused_and_both_are_named() {
    let error = builder().open(fixture().interface("fixture/2")).unwrap_err();
    assert_eq!(error.stage(), Stage::Admit);
    let expected = DescriptorError::Interface { plugin: "fixture/2".to_owned(), host: "fixture/1".to_owned() };
    assert_eq!(reason::<DescriptorError>(&error), &expected);
}

/// Row 48: a name with terminal control characters is refused.
#[test]
fn a_descriptor_with_control_characters_is_refused() {
    for hostile in ["\x1b[2J", "two\nlines", "\u{202e}txet", "\u{9b}31m"] {
        let error = descriptor_error(&native(), fixture().name(hostile).bytes());
        assert!(matches!(error, DescriptorError::Text { field: "name", .. }), "{error}");
        assert!(!error.to_string().contains(hostile), "{error}");
    }
}

#[test]
fn other_kinds_of_files_are_called_by_their_name() {
    let executable = std::fs::read(env!("CARGO_BIN_EXE_sacrificial")).unwrap();
    for (bytes, name) in [
        (&b"#!/bin/sh\n"[..], "no known format"),
        (b"\0asm\x01\0\0\0", "a WebAssembly module"),
        (b"MZ\x90\0", "a PE image"),
        (b"", "an empty file"),
    ] {
        let error = image_error(bytes);
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(admit(&executable).is_err(), "an executable is not a plugin");
}

/// Whatever is wrong with a header, the answer is an error or a manifest.
#[test]
fn no_damaged_byte_of_the_headers_makes_admission_panic() {
    let whole = c_library("counter.c", &[]);
    let sections = u64::from_le_bytes(whole[40..48].try_into().unwrap()) as usize;
    let mut damaged = whole.clone();
    for at in (0..1024).chain(sections..whole.len()) {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            damaged[at] = value;
            let _ = admit(&damaged);
        }
        damaged[at] = whole[at];
    }
}

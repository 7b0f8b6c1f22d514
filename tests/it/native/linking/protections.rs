//! Protections of the control flow, which an image is marked with, and the processor that it says it needs.

use std::process::Command;

use hotslot::native::LinkError;
use hotslot::{Linkage, Protection};

use super::{answering, answers, build, link_error};
use crate::support::admit;

const BOTH: [Protection; 2] = [Protection::IndirectBranchTracking, Protection::ShadowStack];
/// The first word of the properties that compilers write for x86, and what comes before it in the note.
const FEATURES: [u8; 8] = [2, 0, 0, 0xc0, 4, 0, 0, 0];
const PROCESSOR: [u8; 8] = [2, 0x80, 0, 0xc0, 4, 0, 0, 0];
const NOTE: [u8; 16] = *b"\x04\0\0\0\x10\0\0\0\x05\0\0\0GNU\0";

fn linkage(bytes: &[u8]) -> Linkage {
    hotslot::inspect(bytes).expect("it is an image").linkage.expect("it is described")
}

fn marks(bytes: &[u8]) -> Vec<Protection> {
    linkage(bytes).protections
}

/// The image with other bytes in the place of the only ones that are the same as `from`.
fn patched(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let places: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, it)| *it == from).map(|(at, _)| at).collect();
    let [place] = places[..] else { panic!("{from:x?} is there {} times", places.len()) };
    bytes[place..place + to.len()].copy_from_slice(to);
    bytes
}

/// What gcc and the linker make of flags.
#[cfg(target_arch = "x86_64")]
#[test]
fn what_a_compiler_marks_is_listed_and_admitted() {
    for (flag, expected) in [
        ("-fcf-protection=full", &BOTH[..]),
        ("-fcf-protection=branch", &BOTH[..1]),
        ("-fcf-protection=return", &BOTH[1..]),
        ("-fcf-protection=none", &[]),
    ] {
        let bytes = answering(2, &[flag, "-nostdlib"]);
        assert_eq!(marks(&bytes), expected, "{flag}");
        admit(&answers(), &bytes).expect("no process here has it on");
    }
    // One object without them is a library without them.
    let folder = tempfile::tempdir().unwrap();
    let (source, object) = (folder.path().join("plain.c"), folder.path().join("plain.o"));
    std::fs::write(&source, "int plain(void) { return 1; }").unwrap();
    let compile =
        Command::new("cc").args(["-c", "-fPIC", "-fcf-protection=none", "-o"]).args([&object, &source]).status();
    assert!(compile.unwrap().success());
    let object = object.to_str().unwrap();
    assert_eq!(marks(&answering(2, &["-fcf-protection=full", "-nostdlib", object])), []);
}

/// Notes by hand: what the loader believes is believed, and nothing else.
#[cfg(target_arch = "x86_64")]
#[test]
fn malformed_notes_mark_nothing_as_for_the_loader() {
    let sound = answering(2, &["-fcf-protection=full", "-nostdlib"]);
    assert_eq!(marks(&sound), BOTH);
    let whole = [&NOTE[..], &FEATURES[..]].concat();
    let changed = |at: usize, to: &[u8]| {
        let mut note = whole.clone();
        note[at..at + to.len()].copy_from_slice(to);
        marks(&patched(sound.clone(), &whole, &note))
    };
    assert_eq!(changed(0, &[4]), BOTH, "nothing was changed");
    assert_eq!(changed(0, &[3]), [], "another name");
    assert_eq!(changed(8, &[4]), [], "another type");
    assert_eq!(changed(12, b"GNO"), [], "another owner");
    assert_eq!(changed(4, &[4]), [], "shorter than a property");
    assert_eq!(changed(4, &[12]), [], "no multiple of a word");
    assert_eq!(changed(4, &[0xff, 0xff, 0xff, 0xff]), [], "longer than the segment");
    assert_eq!(changed(20, &[0xff, 0xff, 0xff, 0xff]), [], "a property that is longer than the note");
    assert_eq!(changed(20, &[8]), [], "a property of another size");
    assert_eq!(changed(16, &[1]), [], "another property");

    // A note with room for two.
    let roomy = answering(2, &["-fcf-protection=full", "-nostdlib", "-Wa,-mx86-used-note=yes"]);
    assert_eq!(marks(&roomy), BOTH);
    let start = roomy.windows(4).position(|window| window == b"GNU\0").map(|at| at - 12).expect("there is a note");
    let size = 16 + usize::from(roomy[start + 4]);
    let both = [&FEATURES[..], &[3, 0, 0, 0, 0, 0, 0, 0]].concat();
    let none = [&FEATURES[..], &[0, 0, 0, 0, 0, 0, 0, 0]].concat();
    let lower = [1, 0, 0, 0xc0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let holding = |list: &[&[u8]]| {
        let mut bytes = roomy.clone();
        // What is not written to is a note that nobody knows.
        let mut section: Vec<u8> = list.concat();
        assert!(section.len() <= size, "{} bytes do not fit into {size}", section.len());
        section.resize(size, 0);
        bytes[start..start + size].copy_from_slice(&section);
        marks(&bytes)
    };
    let note = |properties: &[u8]| [&[4, 0, 0, 0, properties.len() as u8, 0, 0, 0], &NOTE[8..], properties].concat();
    assert_eq!(holding(&[&note(&both)]), BOTH, "one, with nothing behind it");
    assert_eq!(holding(&[&note(&both), &note(&none)]), [], "two notes");
    assert_eq!(holding(&[&note(&[&both[..], &lower].concat())]), [], "out of order");
    assert_eq!(holding(&[&note(&[&lower[..], &both].concat())]), BOTH, "in order");
}

/// A level that no processor has, and one that this one may have.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_library_for_another_processor_is_refused_before_the_loader_does() {
    let bytes = answering(2, &["-nostdlib", "-fcf-protection=none", "-Wl,-z,x86-64-v4"]);
    let Linkage { remarks, .. } = linkage(&bytes);
    assert!(remarks.iter().any(|remark| remark.contains("x86-64-v4")), "{remarks:?}");
    let has_it = std::arch::is_x86_feature_detected!("avx512vl") && std::arch::is_x86_feature_detected!("avx512bw");
    match admit(&answers(), &bytes) {
        Ok(_) => assert!(has_it),
        Err(error) => {
            assert!(!has_it, "{error}");
            assert!(error.to_string().contains("-march=x86-64-v4"), "{error}");
        }
    }
    let at = bytes.windows(8).position(|window| *window == PROCESSOR).expect("the linker writes it");
    let mut future = bytes;
    future[at + 8] = 0x80;
    let error = link_error(&answers(), &future);
    assert!(matches!(error, LinkError::Processor { .. }), "{error}");
    // The loader agrees.
    let path = super::TemporaryFolder::new();
    let path = path.path().join("future.so");
    std::fs::write(&path, &future).unwrap();
    // SAFETY: a library without constructors, which is refused.
    let refusal = unsafe { libloading::Library::new(&path) }.expect_err("there is no such processor");
    assert!(format!("{refusal:?}").contains("ISA level"), "{refusal:?}");
}

/// The real thing, for a machine that has it: a process whose shadow stack is on.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_library_that_would_turn_shadow_stacks_off_is_refused() {
    super::super::process::alone(|| {
        let with = answering(2, &["-fcf-protection=full", "-nostdlib"]);
        let without = answering(2, &["-fcf-protection=none", "-nostdlib"]);
        admit(&answers(), &without).expect("it is off");
        // From asm/prctl.h: ARCH_SHSTK_ENABLE, and ARCH_SHSTK_SHSTK.
        let (call, enable, feature) = (libc::SYS_arch_prctl, 0x5001_u64, 1_u64);
        let result: i64;
        // SAFETY: a system call, in line: the stack that it begins knows none of the calls so far, so nothing below returns to
        // before it.
        unsafe {
            std::arch::asm!("syscall", inlateout("rax") call => result, in("rdi") enable, in("rsi") feature,
                out("rcx") _, out("r11") _);
        }
        if result != 0 {
            return println!("skipped: no shadow stacks here ({result})");
        }
        let judged = [(&with, false), (&without, true)].map(|(bytes, is_refused)| {
            let refused = admit(&answers(), bytes).err();
            let refused = refused.is_some_and(|error| error.to_string().contains("shadow stacks"));
            refused == is_refused
        });
        let allowed = admit(&answers().dangerous().allow_unprotected(), &without).is_ok();
        // SAFETY: ends the process, which must not return from here.
        unsafe { libc::_exit(if judged == [true, true] && allowed { 0 } else { 1 }) }
    });
}

/// AArch64, by a compiler for it.
#[test]
fn branch_targets_and_signed_addresses_of_aarch64_are_listed() {
    let compiler = "aarch64-linux-gnu-gcc";
    let text = "int answer(void) { return 2; }";
    for (flag, expected) in [
        ("standard", &[Protection::BranchTargets, Protection::PointerAuthentication][..]),
        ("bti", &[Protection::BranchTargets]),
        ("none", &[]),
    ] {
        let flags = [&*format!("-mbranch-protection={flag}"), "-nostdlib"];
        let Some(bytes) = build(compiler, text, &flags) else { return };
        assert_eq!(marks(&bytes), expected, "{flag}");
    }
    let flags = ["-mbranch-protection=standard", "-nostdlib"];
    let Some(sound) = build(compiler, text, &flags) else { return };
    let features = [0, 0, 0, 0xc0, 4, 0, 0, 0, 3, 0, 0, 0];
    let guarded = [0, 0, 0, 0xc0, 4, 0, 0, 0, 7, 0, 0, 0];
    let all = [Protection::BranchTargets, Protection::PointerAuthentication, Protection::GuardedControlStack];
    assert_eq!(marks(&patched(sound.clone(), &features, &guarded)), all);
    assert_eq!(marks(&patched(sound, &features, &[0, 0, 0, 0xc0, 8])), [], "a property of another size");
}

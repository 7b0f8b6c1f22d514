//! Row 57: headers that change the process by themselves.

use hotslot::native::LinkError;
use hotslot::{HotSlot, ProcessEffect};

use super::super::process::alone;
use super::{TemporaryFolder, answer, answering, answers, build, build_at, link_error, refused};
use crate::support::admit;

/// What the linker was told, and what becomes of the process.
const FLAGS: [(&[&str], ProcessEffect, &str); 9] = [
    (&["-Wl,-z,execstack"], ProcessEffect::ExecutableStack, "noexecstack"),
    (&["-Wl,-z,global"], ProcessEffect::GlobalScope, "-z global"),
    (&["-Wl,-z,interpose"], ProcessEffect::Interposer, "-z interpose"),
    (&["-Wl,-z,initfirst"], ProcessEffect::InitFirst, "-z initfirst"),
    (&["-Wl,--audit,libaudit.so"], ProcessEffect::Auditor, "--audit"),
    (&["-Wl,--depaudit,libaudit.so"], ProcessEffect::Auditor, "--depaudit"),
    (&["-Wl,-f,libother.so"], ProcessEffect::Filter, "--filter"),
    (&["-Wl,-F,libother.so"], ProcessEffect::Filter, "--auxiliary"),
    (&["-Wl,--omagic", "-nostdlib"], ProcessEffect::WritableCode, "separate-code"),
];

/// Row 57.
#[test]
fn row_57_every_header_that_changes_the_process_is_refused_by_name() {
    for (flags, effect, remedy) in FLAGS {
        let bytes = answering(2, flags);
        let error = link_error(&answers(), &bytes);
        let LinkError::ProcessEffects { effects } = &error else { panic!("{flags:?}: {error}") };
        assert!(effects.contains(&effect), "{flags:?}: {effects:?}");
        let text = error.to_string();
        assert!(text.contains(remedy) && text.contains(&format!("ProcessEffect::{effect:?}")), "{flags:?}: {text}");
        assert!(hotslot::inspect(&bytes).unwrap().linkage.unwrap().effects.contains(&effect), "{flags:?}");
    }
}

/// Row 57: code that is written to while it is relocated, from objects that are not position-independent.
#[test]
fn row_57_text_relocations_are_refused_by_name() {
    let text = "extern int value; int value = 3; int *where(void) { return &value; } int answer(void) { return *where(); }\n\
                asm(\".text\\n.globl spot\\nspot: .quad value\\n\");";
    let bytes = build("cc", text, &["-Wl,-z,notext"]).unwrap();
    let error = link_error(&answers(), &bytes);
    assert!(
        matches!(&error, LinkError::ProcessEffects { effects } if effects.contains(&ProcessEffect::TextRelocations)),
        "{error}"
    );
    assert!(error.to_string().contains("-fPIC"), "{error}");
}

/// Row 57: a header that is missing says the same as one that asks for it.
#[test]
fn row_57_a_missing_stack_header_is_an_executable_stack() {
    const GNU_STACK: [u8; 4] = 0x6474_e551_u32.to_le_bytes();
    let mut bytes = answering(2, &[]);
    let headers = 64..64 + 56 * usize::from(bytes[56]);
    let header = headers.step_by(56).find(|at| bytes[*at..at + 4] == GNU_STACK).expect("linkers write it");
    bytes[header..header + 4].fill(0);
    let error = link_error(&answers(), &bytes);
    assert_eq!(error, LinkError::ProcessEffects { effects: vec![ProcessEffect::ExecutableStack] });
}

/// Row 57: all of them at once, not one after the other.
#[test]
fn row_57_all_effects_are_named_at_once() {
    let flags = ["-Wl,-z,execstack", "-Wl,-z,global", "-Wl,-z,initfirst"];
    let LinkError::ProcessEffects { effects } = link_error(&answers(), &answering(2, &flags)) else { panic!() };
    assert_eq!(effects.len(), 3, "{effects:?}");
}

/// Row 57: a library that the plugin brings along does the same to the process.
#[test]
fn row_57_the_headers_of_a_needed_library_are_read_too() {
    let folder = TemporaryFolder::new();
    let path = folder.path().to_str().unwrap();
    build_at(&folder.path().join("libbrings.so"), "cc", "int brings(void) { return 1; }", &["-Wl,-z,execstack"])
        .unwrap();
    let flags = [&format!("-L{path}"), "-lbrings", &format!("-Wl,-rpath,{path}")];
    let bytes = build("cc", "int brings(void); int answer(void) { return brings(); }", &flags).unwrap();
    let error = link_error(&answers(), &bytes);
    let LinkError::NeededEffects { name, path, effects } = &error else { panic!("{error}") };
    assert_eq!((&**name, &effects[..]), ("libbrings.so", &[ProcessEffect::ExecutableStack][..]));
    assert!(path.ends_with("libbrings.so"), "{path}");
    let needed = hotslot::inspect(&bytes).unwrap().linkage.unwrap().needed;
    assert_eq!(needed[0].file.as_ref(), Some(path));
    admit(&answers().dangerous().allow_effect(ProcessEffect::ExecutableStack), &bytes).unwrap();
}

/// Row 57: what is allowed is allowed, and nothing else.
#[test]
fn row_57_an_effect_can_be_allowed_by_name() {
    alone(|| {
        let backend = answers().dangerous().allow_effect(ProcessEffect::InitFirst);
        let slot = HotSlot::builder(backend).open(answering(1, &["-Wl,-z,initfirst"])).unwrap();
        assert_eq!(answer(&slot), 1);
        let error = refused(&slot, &answering(2, &["-Wl,-z,initfirst", "-Wl,-z,global"]));
        assert_eq!(error, LinkError::ProcessEffects { effects: vec![ProcessEffect::GlobalScope] });
        assert_eq!(answer(&slot), 1);
    });
}

/// Row 57: what concerns only the library itself is reported and not refused.
#[test]
fn row_57_harmless_flags_are_listed() {
    for (flags, words) in [
        (&["-Wl,-z,nodelete"][..], "cannot be unmapped"),
        (&["-Wl,-Bsymbolic"], "-Bsymbolic"),
        (&["-Wl,-z,nodefaultlib"], "default folders"),
        (&["-Wl,-z,nodump"], "dumps"),
    ] {
        let bytes = answering(2, flags);
        admit(&answers(), &bytes).unwrap();
        let remarks = hotslot::inspect(&bytes).unwrap().linkage.unwrap().remarks;
        assert!(remarks.iter().any(|remark| remark.contains(words)), "{flags:?}: {remarks:?}");
    }
    let ifunc = "static int one(void) { return 1; } static int (*choose(void))(void) { return one; }\n\
                 int pick(void) __attribute__((ifunc(\"choose\"))); int answer(void) { return pick(); }";
    let bytes = build("cc", ifunc, &[]).unwrap();
    admit(&answers(), &bytes).unwrap();
    let remarks = hotslot::inspect(&bytes).unwrap().linkage.unwrap().remarks;
    assert!(remarks.iter().any(|remark| remark.contains("IFUNC")), "{remarks:?}");
}

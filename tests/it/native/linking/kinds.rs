//! Row 59: files that never load are refused by what they are.

use std::path::Path;

use hotslot::native::ImageError;

use super::super::fixtures::TemporaryFolder;
use super::{answering, answers, build_at, compiled};
use crate::support::admit;

#[track_caller]
fn never_loads(bytes: &[u8], words: &[&str]) {
    let error = admit(&answers(), bytes).expect_err("it was let in");
    let error: ImageError = *error.downcast().unwrap_or_else(|other| panic!("another error: {other}"));
    assert!(matches!(error, ImageError::NeverLoads { .. }), "{error}");
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the temporary folder has a plain name")
}

/// Row 59.
#[test]
fn row_59_split_debug_symbols_are_refused_by_what_they_are() {
    let folder = TemporaryFolder::new();
    let (library, debug) = (folder.path().join("library.so"), folder.path().join("library.debug"));
    build_at(&library, "cc", "int answer(void) { return 1; }", &["-g"]).unwrap();
    for (tool, arguments) in [
        ("objcopy", vec!["--only-keep-debug", text(&library), text(&debug)]),
        ("eu-strip", vec!["-f", text(&debug), text(&library)]),
        ("llvm-objcopy", vec!["--only-keep-debug", text(&library), text(&debug)]),
    ] {
        if compiled(tool, arguments).is_some() {
            never_loads(&std::fs::read(&debug).unwrap(), &["debug symbols", "the library itself"]);
        }
    }
}

/// Row 59: as eu-strip splits them: the program headers stay whole, and only the section table says what is missing.
#[test]
fn row_59_debug_symbols_with_whole_program_headers_are_refused_by_what_they_are() {
    const NOBITS: u32 = 8;
    let mut bytes = answering(1, &["-g"]);
    let number = |at: usize, bytes: &[u8]| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (table, count) = (number(40, &bytes) as usize, usize::from(u16::from_le_bytes([bytes[60], bytes[61]])));
    for section in (1..count).map(|index| table + 64 * index) {
        let is_mapped = number(section + 8, &bytes) & 2 != 0;
        if is_mapped {
            bytes[section + 4..section + 8].copy_from_slice(&NOBITS.to_le_bytes());
        }
    }
    never_loads(&bytes, &["debug symbols", "the library itself"]);
}

/// Row 59.
#[test]
fn row_59_programs_objects_and_bitcode_are_refused_by_what_they_are() {
    let folder = TemporaryFolder::new();
    let source = folder.path().join("program.c");
    std::fs::write(&source, "int main(void) { return 0; }").unwrap();
    let output = folder.path().join("output");
    let cases: [(&[&str], &str); 6] = [
        (&["-pie", "-fPIE"], "executable (position-independent)"),
        (&["-static-pie", "-fPIE"], "executable (position-independent)"),
        (&["-no-pie"], "fixed address"),
        (&["-static"], "fixed address"),
        (&["-c"], "an object file"),
        (&["-c", "-flto"], "link-time optimisation"),
    ];
    for (flags, words) in cases {
        let arguments = flags.iter().copied().chain(["-o", text(&output), text(&source)]);
        compiled("cc", arguments).unwrap();
        never_loads(&std::fs::read(&output).unwrap(), &[words, "cdylib"]);
    }
    never_loads(&std::fs::read(env!("CARGO_BIN_EXE_sacrificial")).unwrap(), &["executable"]);
    never_loads(b"BC\xc0\xde\x35\x14", &["bitcode"]);
}

/// Row 59.
#[test]
fn row_59_archives_scripts_and_packed_files_are_refused_by_what_they_are() {
    never_loads(b"!<arch>\nlib.o/", &["static library", "cdylib"]);
    never_loads(b"!<thin>\nlib.o/", &["static library", "cdylib"]);
    let script =
        b"/* GNU ld script */\nOUTPUT_FORMAT(elf64-x86-64)\nGROUP ( /lib/libc.so.6 /usr/lib/libc_nonshared.a )\n";
    never_loads(script, &["linker script", "/lib/libc.so.6", "hand over"]);
    never_loads(b"INPUT(-lncurses)", &["linker script"]);
    never_loads(b"\x1f\x8b\x08\0\0\0", &["gzip", "unpack"]);
    never_loads(b"PK\x03\x04rest", &["zip", "unpack"]);
    never_loads(b"version https://git-lfs.github.com/spec/v1\n", &["Git LFS", "git lfs pull"]);
}

/// Row 59: a process's memory after a crash.
#[test]
fn row_59_a_core_dump_is_refused_by_what_it_is() {
    let mut core = answering(1, &[]);
    core[16] = 4;
    never_loads(&core, &["core dump"]);
}

/// Row 59: what its author said must not be loaded is not handed to the loader.
#[test]
fn row_59_a_library_that_forbids_loading_is_refused_by_what_it_is() {
    never_loads(&answering(1, &["-Wl,-z,nodlopen"]), &["-z nodlopen"]);
}

/// Row 59: no false alarm: the C library can be started, and is a library.
#[test]
fn row_59_a_library_with_an_interpreter_is_no_program() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let libc = paths.find(|path| path.contains("/libc.so.6")).expect("it is linked");
    admit(&answers(), std::fs::read(libc).unwrap()).unwrap();
}

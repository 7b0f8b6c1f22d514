//! What the loader believes without a look: where it is wrong, the process ends by an assertion, a signal or never, or memory of
//! others is written to. All of it is refused before.
#![cfg(target_pointer_width = "64")]

use hotslot::ProcessEffect;
use hotslot::native::{ImageError, LinkError};

use super::{TemporaryFolder, answering, answers, build, build_at, link_error};
use crate::support::admit;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_NOTE: u32 = 4;
const PT_TLS: u32 = 7;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PT_GNU_RELRO: u32 = 0x6474_e552;
const HEADER: usize = 56;

const DT_NEEDED: u64 = 1;
const DT_HASH: u64 = 4;
const DT_RELA: u64 = 7;
const DT_RELAENT: u64 = 9;
const DT_INIT: u64 = 12;
const DT_FINI: u64 = 13;
const DT_PLTREL: u64 = 20;
const DT_DEBUG: u64 = 21;
const DT_INIT_ARRAY: u64 = 25;
const DT_FINI_ARRAY: u64 = 26;
const DT_RELASZ: u64 = 8;
const DT_PLTRELSZ: u64 = 2;
const DT_JMPREL: u64 = 23;
const DT_INIT_ARRAYSZ: u64 = 27;
const DT_FINI_ARRAYSZ: u64 = 28;
const DT_RUNPATH: u64 = 29;
const DT_RELR: u64 = 36;
const DT_RELRENT: u64 = 37;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const DT_VERSYM: u64 = 0x6fff_fff0;
const DT_RELACOUNT: u64 = 0x6fff_fff9;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DT_VERNEED: u64 = 0x6fff_fffe;
const DT_VERNEEDNUM: u64 = 0x6fff_ffff;

/// An image that is changed by what its headers say.
#[derive(Clone)]
struct Elf(Vec<u8>);

impl Elf {
    /// A library with something of everything: functions that are called when it is loaded, data, thread-local storage.
    fn new(flags: &[&str]) -> Elf {
        let text = "#include <stdio.h>\n__thread int mine = 7; static int table[4] = {1}; int *place = table;\n\
                    __attribute__((constructor)) static void begin(void) { table[0] = 2; }\n\
                    int answer(void) { if (mine == 8) puts(\"\"); return place[0]; }";
        let elf = Elf(build("cc", text, flags).expect("a C compiler is needed for the tests"));
        admit(&answers(), &elf.0).expect("as it was built");
        elf
    }

    fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    /// The same with other bytes at a place.
    fn with(&self, at: usize, bytes: &[u8]) -> Elf {
        let mut elf = self.clone();
        elf.0[at..at + bytes.len()].copy_from_slice(bytes);
        elf
    }

    fn headers(&self, kind: u32) -> Vec<usize> {
        let (first, count) = (self.word(32) as usize, usize::from(self.0[56]));
        (0..count).map(|index| first + index * HEADER).filter(|at| self.number(*at) == kind).collect()
    }

    fn header(&self, kind: u32) -> usize {
        self.headers(kind)[0]
    }

    /// Where an address of the image is in the file.
    fn place(&self, address: u64) -> usize {
        let holds =
            |at: &&usize| (self.word(**at + 16)..self.word(**at + 16) + self.word(**at + 32)).contains(&address);
        let loads = self.headers(PT_LOAD);
        let load = loads.iter().find(holds).expect("a segment has it");
        (address - self.word(load + 16) + self.word(load + 8)) as usize
    }

    /// Where the entries of the dynamic section with a tag are.
    fn dynamic(&self, tag: u64) -> Vec<usize> {
        let header = self.header(PT_DYNAMIC);
        let (at, size) = (self.word(header + 8) as usize, self.word(header + 32) as usize);
        (at..at + size).step_by(16).filter(|at| self.word(*at) == tag).collect()
    }

    fn value(&self, tag: u64) -> u64 {
        self.word(self.dynamic(tag)[0] + 8)
    }

    fn with_value(&self, tag: u64, value: u64) -> Elf {
        self.with(self.dynamic(tag)[0] + 8, &value.to_le_bytes())
    }

    #[track_caller]
    fn is_refused(&self, words: &str) {
        let error = admit(&answers(), &self.0).expect_err("it was let in");
        let error: ImageError = *error.downcast().unwrap_or_else(|other| panic!("another error: {other}"));
        assert!(matches!(error, ImageError::Malformed { .. }) && error.to_string().contains(words), "{error}");
        assert!(hotslot::inspect(&self.0).is_err());
    }
}

/// Of two headers, the loader takes the last one: the first one may look harmless.
#[test]
fn headers_that_may_be_there_once_are_refused_if_there_are_two() {
    let elf = Elf::new(&[]);
    for (kind, words) in
        [(PT_DYNAMIC, "dynamic section"), (PT_GNU_STACK, "for the stack"), (PT_TLS, "thread-local storage")]
    {
        let (other, own) = (elf.header(PT_GNU_EH_FRAME), elf.header(kind));
        let header = elf.0[own..own + HEADER].to_vec();
        elf.with(other, &header).is_refused(words);
    }
    // For the loader this one asks for executable stacks.
    let stack = elf.with(elf.header(PT_NOTE), &PT_GNU_STACK.to_le_bytes());
    stack.with(stack.header(PT_GNU_STACK) + 4, &7_u32.to_le_bytes()).is_refused("for the stack");
}

/// The loader goes by the address, and does not look at the offset: what lies there may say something else.
#[test]
fn the_dynamic_section_is_read_where_the_loader_reads_it() {
    let elf = Elf::new(&["-Wl,-z,now"]);
    let flags = elf.dynamic(DT_FLAGS_1)[0];
    let header = elf.header(PT_DYNAMIC);
    let (offset, size) = (elf.word(header + 8) as usize, elf.word(header + 32) as usize);
    // The whole section stands once more at the end of the file, as it was.
    let decoy = elf.0.len() as u64;
    let mut changed = elf.with(flags + 8, &(elf.word(flags + 8) | 2).to_le_bytes());
    changed.0.extend_from_slice(&elf.0[offset..offset + size]);
    let error = link_error(&answers(), &changed.with(header + 8, &decoy.to_le_bytes()).0);
    assert_eq!(error, LinkError::ProcessEffects { effects: vec![ProcessEffect::GlobalScope] });

    elf.with(header + 16, &0x7000_0000_u64.to_le_bytes()).is_refused("its dynamic section");
    // Without its end the loader would read on.
    let end = (offset..offset + size).step_by(16).find(|at| elf.word(*at) == 0).unwrap();
    let mut endless = elf.clone();
    let load = elf
        .headers(PT_LOAD)
        .into_iter()
        .find(|at| elf.word(*at + 8) as usize <= offset && offset < (elf.word(*at + 8) + elf.word(*at + 32)) as usize)
        .unwrap();
    let segment_end = (elf.word(load + 8) + elf.word(load + 32)) as usize;
    endless.0[end..segment_end].fill(0xff);
    endless.is_refused("its dynamic section");
}

/// The loader maps one over the other, or over memory of others.
#[test]
fn segments_that_overlap_or_are_out_of_order_are_refused() {
    let elf = Elf::new(&[]);
    let loads = elf.headers(PT_LOAD);
    let (first, second) = (loads[0], loads[1]);
    let (one, other) = (elf.0[first..first + HEADER].to_vec(), elf.0[second..second + HEADER].to_vec());
    elf.with(first, &other).with(second, &one).is_refused("not in order");
    let size = elf.word(second + 16) + 1 - elf.word(first + 16);
    elf.with(first + 40, &size.to_le_bytes()).is_refused("overlap");
    elf.with(first + 40, &1_u64.to_le_bytes()).is_refused("more bytes in the file");
    elf.with(second + 40, &u64::MAX.to_le_bytes()).is_refused("beyond all addresses");
    let storage = elf.header(PT_TLS);
    elf.with(storage + 40, &1_u64.to_le_bytes()).is_refused("more bytes in the file");
    elf.with(storage + 16, &0x7000_0000_u64.to_le_bytes()).is_refused("thread-local storage");

    // Write protection after relocation, of whatever lies there.
    let protected = elf.header(PT_GNU_RELRO);
    elf.with(protected + 16, &0x7000_0f00_u64.to_le_bytes()).is_refused("write-protected");
    elf.with(protected + 40, &0x10_0000_u64.to_le_bytes()).is_refused("write-protected");
}

/// Two segments in one page, with different places in the file: the second one's page is what is mapped, whole.
#[test]
fn segments_that_share_a_page_and_not_its_content_are_refused() {
    let elf = Elf::new(&[]);
    let loads = elf.headers(PT_LOAD);
    let (first, second) = (loads[0], loads[1]);
    // The first one ends in the page in which the second one begins.
    let end = elf.word(second + 16);
    let changed = elf.with(second + 16, &(end + 0x800).to_le_bytes());
    let size = (end + 0x100 - elf.word(first + 16)).to_le_bytes();
    changed.with(first + 32, &size).with(first + 40, &size).is_refused("share a page");
}

/// The loader asserts, and what it does not assert, it follows.
#[test]
fn hash_tables_that_cannot_be_followed_are_refused() {
    let gnu = Elf::new(&["-Wl,--hash-style=gnu"]);
    let table = gnu.place(gnu.value(DT_GNU_HASH));
    for filters in [0, 3, u32::MAX] {
        gnu.with(table + 8, &u32::to_le_bytes(filters)).is_refused("hash table");
    }
    let buckets = table + 16 + 8 * gnu.number(table + 8) as usize;
    let bucket =
        (0..gnu.number(table) as usize).map(|index| buckets + 4 * index).find(|at| gnu.number(*at) != 0).unwrap();
    // Only one of those: the first symbol is higher then.
    gnu.with(bucket, &0x00ff_ffff_u32.to_le_bytes()).is_refused("hash table");
    gnu.with(table + 4, &0x1000_u32.to_le_bytes()).is_refused("hash table");

    let sysv = Elf::new(&["-Wl,--hash-style=sysv"]);
    let table = sysv.place(sysv.value(DT_HASH));
    let buckets = sysv.number(table) as usize;
    let used = (0..buckets).map(|index| table + 8 + 4 * index).find(|at| sysv.number(*at) != 0).unwrap();
    let symbol = sysv.number(used);
    let chain = table + 8 + 4 * buckets + 4 * symbol as usize;
    // In a circle: a look-up would hold the loader's lock for ever.
    sysv.with(chain, &symbol.to_le_bytes()).is_refused("hash table");
    sysv.with(used, &0x00ff_ffff_u32.to_le_bytes()).is_refused("hash table");
    sysv.with(table + 4, &0x00ff_ffff_u32.to_le_bytes()).is_refused("hash table");
}

#[test]
fn relocations_that_the_loader_asserts_or_that_leave_the_image_are_refused() {
    let elf = Elf::new(&["-Wl,-z,lazy"]);
    elf.with_value(DT_RELAENT, 16).is_refused("another size");
    elf.with(elf.dynamic(DT_RELAENT)[0], &DT_DEBUG.to_le_bytes()).is_refused("another size");
    elf.with_value(DT_RELACOUNT, 1 << 40).is_refused("more relocations than it has");
    for place in [1_u64 << 40, u64::MAX] {
        let first = elf.place(elf.value(DT_RELA));
        elf.with(first, &place.to_le_bytes()).is_refused("what is not the image's");
    }
    if !elf.dynamic(DT_PLTREL).is_empty() {
        elf.with_value(DT_PLTREL, 17).is_refused("another form");
    }
    for tag in [DT_INIT, DT_FINI].into_iter().filter(|tag| !elf.dynamic(*tag).is_empty()) {
        elf.with_value(tag, 0x7000_0000).is_refused("is called when");
    }
    elf.with_value(DT_INIT_ARRAY, 0x7000_0000).is_refused("are called when");
}

/// What is there and what belongs to it is not: the loader follows a null pointer, some of them only at the end of the process.
#[test]
fn parts_of_the_dynamic_section_that_belong_together_are_there_together() {
    let elf = Elf::new(&["-Wl,-z,lazy"]);
    for tag in [DT_RELASZ, DT_JMPREL, DT_PLTRELSZ, DT_INIT_ARRAYSZ, DT_FINI_ARRAYSZ, DT_VERSYM] {
        for entry in elf.dynamic(tag) {
            elf.with(entry, &DT_DEBUG.to_le_bytes()).is_refused("is missing");
        }
    }
    assert!(!elf.dynamic(DT_FINI_ARRAY).is_empty() && !elf.dynamic(DT_INIT_ARRAYSZ).is_empty());
}

#[test]
fn what_is_called_is_code_and_what_is_counted_is_relative() {
    let elf = Elf::new(&[]);
    let data = elf.value(DT_INIT_ARRAY);
    for tag in [DT_INIT, DT_FINI].into_iter().filter(|tag| !elf.dynamic(*tag).is_empty()) {
        elf.with_value(tag, data).is_refused("outside of its code");
    }
    // The first one that is not relative stands behind those that are counted.
    let counted = elf.value(DT_RELACOUNT);
    elf.with_value(DT_RELACOUNT, counted + 1).is_refused("relative that is none");
    // A word that ends behind the image.
    let last = *elf.headers(PT_LOAD).last().unwrap();
    let end = elf.word(last + 16) + elf.word(last + 40);
    let first = elf.place(elf.value(DT_RELA));
    elf.with(first, &(end - 1).to_le_bytes()).is_refused("what is not the image's");
    elf.with(elf.header(PT_TLS) + 48, &0_u64.to_le_bytes()).is_refused("alignment");
}

/// What the loader takes from the stack of the thread that loads, and what takes time and memory here.
#[test]
fn headers_names_and_search_paths_have_bounds() {
    let elf = Elf::new(&[]);
    let mut many = elf.clone();
    let (first, count) = (elf.word(32) as usize, usize::from(elf.0[56]));
    let headers = elf.0[first..first + count * HEADER].to_vec();
    let at = many.0.len() as u64;
    many.0.extend_from_slice(&headers);
    many.0.extend(std::iter::repeat_n(0, (513 - count) * HEADER));
    many.with(32, &at.to_le_bytes()).with(56, &513_u16.to_le_bytes()).is_refused("512 program headers");

    let with_path = |path: &str| {
        let flag = format!("-Wl,--enable-new-dtags,-rpath,{path}");
        build("cc", "int answer(void) { return 1; }", &[&flag]).expect("it is linked")
    };
    // Longer than a name, as package managers write them: all of it counts.
    let folders: Vec<String> = (0..40).map(|number| format!("/{}-{number}", "x".repeat(60))).collect();
    let found = hotslot::inspect(&with_path(&folders.join(":"))).unwrap().linkage.unwrap();
    assert_eq!(found.search_path, folders);
    let refused = |path: &str, words: &str| Elf(with_path(path)).is_refused(words);
    refused(&format!("/{}", "x".repeat(4096)), "longer than any path");
    refused(&["/x"; 1001].join(":"), "1000 folders");
    // The first of two is another one's, for the loader as well.
    let two = Elf(with_path("/one"));
    assert_eq!(two.dynamic(DT_RUNPATH).len(), 1);
}

/// The loader maps a page for a segment without content that does not begin with a page.
#[test]
fn an_empty_segment_lies_where_the_others_leave_room() {
    let elf = Elf::new(&[]);
    let note = elf.header(PT_NOTE);
    let mut empty = vec![0; HEADER];
    empty[..4].copy_from_slice(&PT_LOAD.to_le_bytes());
    empty[4] = 4;
    empty[16..24].copy_from_slice(&0x10_u64.to_le_bytes());
    empty[24..32].copy_from_slice(&0x10_u64.to_le_bytes());
    empty[48..56].copy_from_slice(&0x1000_u64.to_le_bytes());
    let loads = elf.headers(PT_LOAD);
    assert!(loads.iter().all(|load| *load < note), "it stands behind them");
    elf.with(note, &empty).is_refused("not in order");
}

/// As distributions pack them now.
#[test]
fn packed_relocations_are_read_and_those_that_leave_the_image_are_refused() {
    let text = "static int one, two; int *places[70] = {&one, &two}; int answer(void) { return *places[0]; }";
    let flags = ["-Wl,-z,pack-relative-relocs"];
    let Some(elf) = build("cc", text, &flags).map(Elf).filter(|elf| !elf.dynamic(DT_RELR).is_empty()) else {
        return println!("skipped: the linker does not pack relocations");
    };
    admit(&answers(), &elf.0).unwrap();
    let list = elf.place(elf.value(DT_RELR));
    elf.with(list, &0x7000_0000_u64.to_le_bytes()).is_refused("what is not the image's");
    elf.with(list, &1_u64.to_le_bytes()).is_refused("packed relocations");
    elf.with_value(DT_RELRENT, 16).is_refused("another size");
    elf.with_value(DT_RELR, 0x7000_0000).is_refused("packed relocations");
}

/// The lists of versions are followed from entry to entry: their counts say nothing, to the loader or here.
#[test]
fn lists_of_versions_are_followed_to_their_end_and_not_for_ever() {
    let text = "#include <stdio.h>\nint answer(void) { return puts(\"\"); }";
    let elf = Elf(build("cc", text, &[]).unwrap());
    let list = elf.place(elf.value(DT_VERNEED));
    assert_eq!(elf.number(list + 12), 0, "it needs versions of the C library only");
    let version = list + elf.number(list + 8) as usize;
    // The same entry again, 65,535 times 65,535.
    let endless = elf.with_value(DT_VERNEEDNUM, 0xffff).with(list + 2, &[0xff, 0xff]);
    admit(&answers(), endless.with(version + 12, &0_u32.to_le_bytes()).0).expect("the counts do not matter");
    elf.with(list + 12, &0x00ff_ffff_u32.to_le_bytes()).is_refused("list of versions");
    elf.with(version + 12, &0x00ff_ffff_u32.to_le_bytes()).is_refused("list of versions");
    elf.with_value(DT_VERNEED, 0x7000_0000).is_refused("list of versions");
    elf.with_value(DT_VERSYM, 0x7000_0000).is_refused("list of versions");
    let symbols = elf.place(elf.value(DT_VERSYM));
    elf.with(symbols + 2, &[0xff, 0x7f]).is_refused("a version that the image does not know");
}

/// What patchelf makes of a library: its symbols have versions of one that nobody names as needed, and the loader asserts that
/// there is one.
#[test]
fn versions_of_a_library_that_nobody_names_are_refused() {
    let folder = TemporaryFolder::new();
    let path = folder.path().to_str().unwrap();
    std::fs::write(folder.path().join("versions"), "ONE { global: one; };").unwrap();
    let script = format!("-Wl,--version-script={path}/versions");
    build_at(&folder.path().join("libone.so"), "cc", "int one(void) { return 1; }", &[&script]).unwrap();
    let flags = [&*format!("-L{path}"), "-lone", &format!("-Wl,-rpath,{path}")];
    let bytes = build("cc", "int one(void); int answer(void) { return one(); }", &flags).unwrap();
    admit(&answers(), &bytes).unwrap();
    let elf = Elf(bytes);
    let names: Vec<usize> = elf.dynamic(DT_NEEDED);
    // The one that comes first: libone.so.
    let removed = elf.with(names[0], &DT_DEBUG.to_le_bytes());
    let error = link_error(&answers(), &removed.0);
    assert_eq!(error, LinkError::VersionsWithoutLibrary { library: "libone.so".to_owned() });
    assert!(error.to_string().contains("patchelf"), "{error}");
    // What patchelf makes of it.
    std::fs::write(folder.path().join("plugin.so"), &elf.0).unwrap();
    let plugin = format!("{path}/plugin.so");
    for (option, more, is_admitted) in
        [("--replace-needed", Some(format!("{path}/libone.so")), true), ("--remove-needed", None, false)]
    {
        let output = format!("{path}/{}.so", &option[2..]);
        let arguments =
            [Some(option), Some("libone.so"), more.as_deref(), Some("--output"), Some(&*output), Some(&*plugin)];
        if super::compiled("patchelf", arguments.into_iter().flatten()).is_some() {
            let verdict = admit(&answers(), std::fs::read(&output).unwrap());
            assert_eq!(verdict.is_ok(), is_admitted, "{option}: {verdict:?}");
        }
    }
    // It is all the same to the loader who brings it.
    super::super::process::alone(|| {
        let folder = TemporaryFolder::new();
        let library = folder.path().join("libone.so");
        build_at(&library, "cc", "int one(void) { return 1; }", &["-Wl,-soname,libone.so"]).unwrap();
        // SAFETY: a library without constructors.
        std::mem::forget(unsafe { libloading::Library::new(&library).unwrap() });
        admit(&answers(), &removed.0).unwrap();
    });
}

/// A name or a search path that depends on the working directory leads somewhere, too.
#[test]
fn a_relative_path_leads_to_a_library_that_is_looked_at() {
    let folder = TemporaryFolder::new();
    let path = folder.path().to_str().unwrap();
    std::fs::create_dir(folder.path().join("lib")).unwrap();
    let library = folder.path().join("lib/libbrings.so");
    build_at(&library, "cc", "int brings(void) { return 1; }", &["-Wl,-z,execstack"]).unwrap();
    let named = folder.path().join("lib/libnamed.so");
    let flags = ["-Wl,-z,execstack", "-Wl,-soname,lib/libbrings.so"];
    build_at(&named, "cc", "int brings(void) { return 1; }", &flags).unwrap();
    let text = "int brings(void); int answer(void) { return brings(); }";
    let search = format!("-L{path}/lib");
    let mut plugins = vec![build("cc", text, &[&search, "-lnamed"]).unwrap()];
    for folders in ["lib", "./lib", "/nowhere:lib"] {
        plugins.push(build("cc", text, &[&search, "-lbrings", &format!("-Wl,-rpath,{folders}")]).unwrap());
    }
    super::super::process::alone(|| {
        std::env::set_current_dir(folder.path()).unwrap();
        for plugin in &plugins {
            let error = link_error(&answers(), plugin);
            let LinkError::NeededEffects { path, .. } = &error else { panic!("{error}") };
            assert!(path.ends_with("/lib/libbrings.so"), "{path}");
        }
        std::env::set_current_dir(folder.path().join("lib")).unwrap();
        for folders in [":/nowhere", "/nowhere::", "."] {
            let plugin = build("cc", text, &[&search, "-lbrings", &format!("-Wl,-rpath,{folders}")]).unwrap();
            assert!(matches!(link_error(&answers(), &plugin), LinkError::NeededEffects { .. }), "{folders}");
        }
    });
}

/// Linkers of other kinds make libraries that are let in.
#[test]
fn libraries_of_other_linkers_are_admitted() {
    admit(&answers(), answering(1, &["-Wl,-z,noseparate-code"])).unwrap();
    admit(&answers(), answering(1, &["-Wl,-z,relro,-z,now,--hash-style=both,--build-id"])).unwrap();
    admit(&answers(), answering(1, &["-nostdlib"])).unwrap();
    admit(&answers(), answering(1, &["-Wl,-dynamic-linker,/lib64/ld-linux-x86-64.so.2"])).unwrap();
    for linker in ["gold", "lld", "mold"] {
        let is_here = ["", "/usr/bin/"]
            .iter()
            .any(|folder| std::process::Command::new(format!("{folder}ld.{linker}")).arg("--version").output().is_ok());
        if !is_here {
            println!("skipped: no ld.{linker} here");
            continue;
        }
        admit(&answers(), answering(1, &[&format!("-fuse-ld={linker}")]))
            .unwrap_or_else(|error| panic!("{linker}: {error}"));
    }
}

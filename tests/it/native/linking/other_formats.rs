//! Images of other platforms: what they ask of their loaders, written here byte by byte.

use hotslot::{Linkage, ProcessEffect, Protection};

fn linkage(bytes: &[u8]) -> Linkage {
    hotslot::inspect(bytes).expect("it is an image").linkage.expect("it is described")
}

fn names(linkage: &Linkage) -> Vec<&str> {
    linkage.needed.iter().map(|library| &*library.name).collect()
}

#[track_caller]
fn remarks(linkage: &Linkage, expected: &[&str]) {
    for words in expected {
        assert!(linkage.remarks.iter().any(|remark| remark.contains(words)), "{words}: {:?}", linkage.remarks);
    }
    assert_eq!(linkage.remarks.len(), expected.len(), "{:?}", linkage.remarks);
}

/// Bytes that grow by numbers of little-endian order.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn half(mut self, value: u16) -> Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn number(mut self, value: u32) -> Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn word(mut self, value: u64) -> Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn numbers(self, values: &[u32]) -> Bytes {
        values.iter().fold(self, |bytes, value| bytes.number(*value))
    }
    /// A text in a field of this size.
    fn text(mut self, text: &str, size: usize) -> Bytes {
        let end = self.0.len() + size;
        self.0.extend(text.bytes());
        self.0.resize(end, 0);
        self
    }
    fn bytes(mut self, bytes: &[u8]) -> Bytes {
        self.0.extend(bytes);
        self
    }
    fn up_to(mut self, place: usize) -> Bytes {
        assert!(self.0.len() <= place, "{} bytes are there already", self.0.len());
        self.0.resize(place, 0);
        self
    }
}

/// A Mach-O library for x86-64 with these load commands; what they describe begins at 4096.
fn macho(flags: u32, commands: &[Vec<u8>], content: &[u8]) -> Vec<u8> {
    let size: usize = commands.iter().map(Vec::len).sum();
    let count = u32::try_from(commands.len()).unwrap();
    Bytes::default()
        .numbers(&[0xfeed_facf, 0x0100_0007, 3, 6, count, u32::try_from(size).unwrap(), flags, 0])
        .bytes(&commands.concat())
        .up_to(4096)
        .bytes(content)
        .0
}

const TWOLEVEL: u32 = 0x80;

/// A command that names something.
fn naming(command: u32, before: &[u32], name: &str) -> Vec<u8> {
    let start = 12 + 4 * before.len();
    let size = (start + name.len() + 1).next_multiple_of(8);
    let numbers = [&[command, u32::try_from(size).unwrap(), u32::try_from(start).unwrap()], before].concat();
    Bytes::default().numbers(&numbers).text(name, size - start).0
}

fn library(command: u32, name: &str) -> Vec<u8> {
    naming(command, &[2, 0x1_0000, 0x1_0000], name)
}

/// A segment over the content, with sections of these names, kinds and sizes.
fn segment(protection: u32, sections: &[(&str, u32, u64)], size: u64) -> Vec<u8> {
    let length = u32::try_from(72 + 80 * sections.len()).unwrap();
    let head = Bytes::default()
        .numbers(&[0x19, length])
        .text("__DATA", 16)
        .word(0)
        .word(0x1000)
        .word(4096)
        .word(size)
        .numbers(&[7, protection, u32::try_from(sections.len()).unwrap(), 0]);
    let each = |bytes: Bytes, (name, kind, size): &(&str, u32, u64)| {
        bytes.text(name, 16).text("__DATA", 16).word(0).word(*size).numbers(&[4096, 3, 0, 0, *kind, 0, 0, 0])
    };
    sections.iter().fold(head, each).0
}

#[test]
fn what_a_mach_o_library_asks_of_its_loader_is_listed() {
    // A function and a variable that are defined weakly, a variable that is not, and one that nobody else sees.
    let symbols = [(1, 0x0f, 1, 0x80), (7, 0x0f, 2, 0x80), (13, 0x0f, 2, 0), (20, 0x1f, 2, 0x80)];
    let table = symbols.iter().fold(Bytes::default(), |bytes, (name, kind, section, flags)| {
        bytes.number(*name).bytes(&[*kind, *section]).half(*flags).word(0)
    });
    let content = table.text("\0_code\0_data\0_other\0_hidden", 64).up_to(256).0;
    let symtab = Bytes::default().numbers(&[2, 24, 4096, 4, 4096 + 64, 64]).0;
    let code = segment(5, &[("__text", 0x8000_0400, 16)], 256);
    let data = segment(
        3,
        &[("__data", 0, 16), ("__mod_init_func", 9, 16), ("__mod_term_func", 10, 8), ("__thread_vars", 0x13, 24)],
        256,
    );
    let commands = [
        library(0xd, "@rpath/libplugin.dylib"),
        library(0xc, "/usr/lib/libSystem.B.dylib"),
        library(0x8000_0018, "/usr/lib/libweak.dylib"),
        library(0x8000_001f, "@rpath/libother.dylib"),
        library(0x20, "/usr/lib/lib\x1blazy.dylib"),
        naming(0x8000_001c, &[], "@loader_path/../lib"),
        naming(0x8000_001c, &[], "/opt/lib"),
        code.clone(),
        data,
        symtab.clone(),
    ];
    let found = linkage(&macho(TWOLEVEL, &commands, &content));
    assert_eq!(found.soname.as_deref(), Some("@rpath/libplugin.dylib"));
    let needed = [
        "/usr/lib/libSystem.B.dylib",
        "/usr/lib/libweak.dylib",
        "@rpath/libother.dylib",
        "/usr/lib/lib\\u{1b}lazy.dylib",
    ];
    assert_eq!(names(&found), needed);
    assert_eq!(found.search_path, ["@loader_path/../lib", "/opt/lib"]);
    assert_eq!(found.unique_symbols, ["data"], "data that is seen and weak, and nothing else");
    assert_eq!(found.effects, []);
    remarks(
        &found,
        &[
            "libweak.dylib: it does without",
            "libother.dylib: its symbols count",
            "lib\\u{1b}lazy.dylib: it is loaded when",
            "2 initializers",
            "1 terminators",
            "S_THREAD_LOCAL",
        ],
    );

    // The other encodings, and what changes the process.
    let data = segment(7, &[("__init_offsets", 0x16, 12), ("__interpose", 0xd, 16)], 256);
    let found = linkage(&macho(0, &[code, data, symtab], &content));
    assert_eq!(found.effects, [ProcessEffect::WritableCode, ProcessEffect::Interposer]);
    remarks(&found, &["flat namespace", "3 initializers"]);
}

/// Where the parts of the PE image lie, in the file and in memory alike.
const START: u32 = 0x1000;
const BASE: u64 = 0x1_8000_0000;

/// A PE library for x86-64 whose one section holds `content`, with these flags and directories (number, place, size).
fn pe(entry: u32, flags: u16, section: u32, directories: &[(usize, u32, u32)], content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap();
    let mut table = [[0_u32; 2]; 16];
    for (number, place, size) in directories {
        table[*number] = [*place, *size];
    }
    let headers = Bytes::default()
        .text("MZ", 60)
        .number(64)
        .text("PE", 4)
        .half(0x8664)
        .half(1)
        .numbers(&[0, 0, 0])
        .half(240)
        .half(0x2022)
        .half(0x20b)
        .half(0)
        .numbers(&[size, 0, 0, entry, START])
        .word(BASE)
        .numbers(&[0x1000, 0x1000, 0, 0, 6, 0, 2 * START, 0x1000, 0])
        .half(3)
        .half(flags)
        .word(0x10_0000)
        .word(0x1000)
        .word(0x10_0000)
        .word(0x1000)
        .numbers(&[0, 16]);
    let headers = table.iter().fold(headers, |bytes, directory| bytes.numbers(directory));
    headers
        .text(".data", 8)
        .numbers(&[size, START, size, START, 0, 0, 0, section])
        .up_to(START as usize)
        .bytes(content)
        .0
}

#[test]
fn what_a_pe_library_asks_of_its_loader_is_listed() {
    const AT: u32 = START;
    let texts = AT + 0x200;
    // Two imports, one of them twice under another spelling; a delayed one; a directory of thread-local storage with two
    // callbacks; exports with one that is passed on.
    let content = Bytes::default()
        .numbers(&[AT + 0x180, 0, 0, texts, AT + 0x180, AT + 0x180, 0, 0, texts + 16, AT + 0x180])
        .numbers(&[AT + 0x180, 0, 0, texts + 32, AT + 0x180, 0, 0, 0, 0, 0])
        .up_to(0x60)
        .numbers(&[1, texts + 48, 0, AT + 0x180, AT + 0x180, 0, 0, 0])
        .numbers(&[0; 8])
        .up_to(0xa0)
        .word(0)
        .word(0)
        .word(0)
        .word(BASE + u64::from(AT) + 0xd0)
        .word(0)
        .up_to(0xd0)
        .word(BASE + 0x1100)
        .word(BASE + 0x1110)
        .word(0)
        .up_to(0x100)
        .numbers(&[0, 0, 0, texts + 64, 1, 1, 1, AT + 0x130, AT + 0x134, AT + 0x138])
        .up_to(0x130)
        .numbers(&[AT + 0x140, AT + 0x150])
        .half(0)
        .up_to(0x140)
        .text("other.passed", 16)
        .text("passed", 16)
        .up_to(0x200)
        .text("KERNEL32.dll", 16)
        .text("helper.dll", 16)
        .text("kernel32.DLL", 16)
        .text("delayed.dll", 16)
        .text("plugin.dll", 16)
        .up_to(0x280)
        .0;
    let directories = [(0, AT + 0x100, 0x180), (1, AT, 0x50), (9, AT + 0xa0, 40), (13, AT + 0x60, 64)];
    let found = linkage(&pe(AT + 0x100, 0x4140, 0xc000_0040, &directories, &content));
    assert_eq!(found.soname.as_deref(), Some("plugin.dll"));
    assert_eq!(names(&found), ["KERNEL32.dll", "helper.dll", "delayed.dll"]);
    assert_eq!((found.effects, found.protections), (vec![], vec![Protection::ControlFlowGuard]));
    let found = linkage(&pe(AT + 0x100, 0x4140, 0xc000_0040, &directories, &content));
    remarks(&found, &["delayed.dll: it is loaded when", "other: some of its exports", "DllMain", "2 TLS callbacks"]);

    let plain = linkage(&pe(0, 0, 0xe000_0020, &[], &content));
    assert_eq!((plain.effects, plain.protections), (vec![ProcessEffect::WritableCode], vec![]));
    let plain = linkage(&pe(0, 0, 0xe000_0020, &[], &content));
    remarks(&plain, &["fixed address"]);
}

/// No byte of the headers and tables makes it panic, and no cut.
#[test]
fn damage_in_images_of_other_platforms_harms_nobody() {
    let content: Vec<u8> = (0..512_u16).map(|at| (at % 251) as u8).collect();
    let directories: Vec<(usize, u32, u32)> = (0..16).map(|number| (number, START + 16 * number as u32, 64)).collect();
    let sections = [("__mod_init_func", 9, 16), ("__interpose", 0xd, 16)];
    let symtab = Bytes::default().numbers(&[2, 24, 4096, 8, 4096 + 128, 64]).0;
    let commands = [library(0xc, "libone.dylib"), naming(0x8000_001c, &[], "/opt"), segment(7, &sections, 512), symtab];
    for sound in [pe(START, 0, 0xe000_0020, &directories, &content), macho(0, &commands, &content)] {
        let _ = hotslot::inspect(&sound);
        let mut damaged = sound.clone();
        for at in (0..640).chain(4096..4608) {
            for value in [0, 1, 0x7f, 0xff] {
                damaged[at] = value;
                let _ = hotslot::inspect(&damaged);
            }
            damaged[at] = sound[at];
        }
        for end in (0..sound.len()).step_by(7) {
            let _ = hotslot::inspect(&sound[..end]);
        }
    }
}

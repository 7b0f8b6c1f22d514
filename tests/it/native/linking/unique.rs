//! Row 50: symbols that the loader unifies over the whole process in spite of `RTLD_LOCAL`.

use hotslot::HotSlot;
use hotslot::native::{Library, LinkError, Native, Unload};

use super::super::process::alone;
use super::{answer, answers, build, link_error, refused};

const SINGLETON: &str = include_str!("../../../fixtures/unique.cpp");

/// Row 50.
#[test]
fn row_50_a_unique_symbol_is_refused_and_named_with_the_flag_that_avoids_it() {
    alone(|| {
        let Some(one) = build("g++", SINGLETON, &["-DV=1"]) else { return };
        let error = link_error(&answers(), &one);
        let LinkError::UniqueSymbols { symbol, others } = &error else { panic!("{error}") };
        assert!(symbol.contains("counter"), "{symbol}");
        assert_eq!(*others, 1, "the variable and its guard");
        assert!(error.to_string().contains("-fno-gnu-unique"), "{error}");

        let found = hotslot::inspect(&one).unwrap().linkage.unwrap();
        assert_eq!(found.unique_symbols.len(), 2, "{found:?}");
    });
}

/// Row 50: built as the refusal says, each generation has its own.
#[test]
fn row_50_without_unique_symbols_every_generation_has_its_own_data() {
    alone(|| {
        let flags = |version: &'static str| build("g++", SINGLETON, &[version, "-fno-gnu-unique"]);
        let (Some(one), Some(two)) = (flags("-DV=1"), flags("-DV=2")) else { return };
        type Both = (unsafe extern "C" fn() -> i32, unsafe extern "C" fn() -> i32);
        // SAFETY: the constructors are harmless, and the types are those in the source.
        let backend = unsafe { Native::raw(|it: &Library| Ok::<Both, _>((it.get("answer")?, it.get("inside")?))) };
        let slot = HotSlot::builder(backend).open(one).unwrap();
        // SAFETY: functions that take nothing, behind a lease.
        let ask = || unsafe { (slot.load().0(), slot.load().1()) };
        assert_eq!(ask(), (1000, 0));
        slot.reload(two).unwrap();
        assert_eq!(ask(), (2000, 448));
    });
}

/// Row 50: other sources of them, in any symbol type.
#[test]
fn row_50_every_shape_of_unique_symbol_is_refused() {
    for (shape, text) in [
        (
            "template",
            "template <class T> struct S { static int it; }; template <class T> int S<T>::it = 1; \
                      template struct S<int>; extern \"C\" int answer() { return S<int>::it; }",
        ),
        ("inline variable", "inline int shared_number = 7; extern \"C\" int answer() { return shared_number; }"),
        (
            "thread-local",
            "inline int &it() { static thread_local int one = 1; return one; } \
                          extern \"C\" int answer() { return it()++; }",
        ),
        (
            "assembly",
            "extern \"C\" int mine; asm(\".data\\n.globl mine\\n.type mine, @gnu_unique_object\\n.size mine, 4\\n\
                      mine: .long 3\\n.text\"); extern \"C\" int answer() { return mine; }",
        ),
    ] {
        let Some(bytes) = build("g++", text, &["-std=c++17"]) else { return };
        let error = link_error(&answers(), &bytes);
        assert!(matches!(error, LinkError::UniqueSymbols { .. }), "{shape}: {error}");
    }
}

/// Row 50: what was told to be accepted is accepted.
#[test]
fn row_50_unique_symbols_can_be_allowed() {
    alone(|| {
        let Some(one) = build("g++", SINGLETON, &["-DV=1"]) else { return };
        let backend = answers().unload(Unload::KeepMapped).dangerous().allow_unique_symbols();
        let slot = HotSlot::builder(backend).open(one).unwrap();
        assert_eq!(answer(&slot), 1000);
    });
}

/// Row 50: the current plugin serves on.
#[test]
fn row_50_a_refused_reload_leaves_the_old_one_serving() {
    alone(|| {
        let Some(good) = build("g++", SINGLETON, &["-DV=1", "-fno-gnu-unique"]) else { return };
        let slot = HotSlot::builder(answers()).open(good).unwrap();
        refused(&slot, &build("g++", SINGLETON, &["-DV=2"]).unwrap());
        assert_eq!(answer(&slot), 1000);
    });
}

/// Row 50: a cdylib in Rust that links C++: rustc's version script makes the symbols local, and then they are harmless.
#[test]
fn row_50_a_rust_cdylib_that_links_cpp_is_refused_only_if_unique_symbols_come_through() {
    let folder = super::TemporaryFolder::new();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("unique.cpp"), SINGLETON.replace("answer", "cpp_answer")).unwrap();
    let rust = "unsafe extern \"C\" { fn cpp_answer() -> i32; }\n\
                #[unsafe(no_mangle)] pub extern \"C\" fn answer() -> i32 { unsafe { cpp_answer() } }\n\
                #[unsafe(no_mangle)] pub extern \"C\" fn keep() -> usize { cpp_answer as usize }\n";
    std::fs::write(path("lib.rs"), rust).unwrap();
    for (flag, is_refused) in [("-DFLAG", true), ("-fno-gnu-unique", false)] {
        let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        let object = path("unique.o");
        let arguments = ["-c", "-fPIC", "-O1", "-DV=1", flag, "-o", &text(&object), &text(&path("unique.cpp"))];
        if super::compiled("g++", arguments).is_none() {
            return;
        }
        let library = path("librust.so");
        let link = format!("link-arg={}", text(&object));
        let arguments =
            ["--edition=2024", "--crate-type=cdylib", "-C", "panic=abort", "-C", &link, "-l", "dylib=stdc++"];
        let arguments =
            arguments.map(str::to_owned).into_iter().chain([text(&path("lib.rs")), "-o".to_owned(), text(&library)]);
        super::compiled("rustc", arguments).unwrap();
        let verdict = super::admit(&answers(), std::fs::read(&library).unwrap());
        let unified = hotslot::inspect(&std::fs::read(&library).unwrap()).unwrap().linkage.unwrap().unique_symbols;
        println!("{flag}: {unified:?}");
        if !is_refused {
            assert!(unified.is_empty() && verdict.is_ok(), "{verdict:?}");
        } else {
            // A linker that ignores the script would let them through.
            assert_eq!(verdict.is_err(), !unified.is_empty(), "{verdict:?}");
        }
    }
}

/// Row 50: the plugins have none of their own, and each comes with its version of a library that has: that one is unified with
/// the other version's, whatever the files are called.
#[test]
fn row_50_unique_data_of_needed_libraries_is_compared_with_what_is_mapped() {
    alone(|| {
        let folder = super::TemporaryFolder::new();
        let path = folder.path().to_str().unwrap();
        let plugin = |version: u32, size: u32, flag: &str| {
            let text = format!(
                "struct Table {{ int values[{size}]; }}; inline Table &table() {{ static Table it = {{}}; return it; }}\n\
                 extern \"C\" int last{version}() {{ return table().values[{size} - 1]++; }}"
            );
            let library = folder.path().join(format!("libtable-{version}.so"));
            super::build_at(&library, "g++", &text, &[flag])?;
            let text = format!("int last{version}(void); int answer(void) {{ return last{version}(); }}");
            let flags = [&*format!("-L{path}"), &format!("-ltable-{version}"), &format!("-Wl,-rpath,{path}")];
            build("cc", &text, &flags)
        };
        let Some(first) = plugin(1, 4, "-O1") else { return };
        let slot = HotSlot::builder(answers()).open(first).unwrap();
        let error = refused(&slot, &plugin(2, 400, "-O1").unwrap());
        let LinkError::ReplacedData { library: Some(library), size: 1600, host_size: 16, by, .. } = &error else {
            panic!("{error}")
        };
        assert!(library == "libtable-2.so" && by.ends_with("libtable-1.so"), "{error}");
        assert!(error.to_string().contains("-fno-gnu-unique"), "{error}");
        slot.reload(plugin(3, 4, "-O1").unwrap()).expect("of the same size they are meant to be one");
        slot.reload(plugin(4, 400, "-fno-gnu-unique").unwrap()).unwrap();
    });
}

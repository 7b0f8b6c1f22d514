//! Row 56: symbols of the plugin for which the process has a definition already.

use hotslot::native::LinkError;
use hotslot::{HotSlot, Replaced};

use super::super::fixtures::TemporaryFolder;
use super::super::process::alone;
use super::super::{c_answering, fixture};
use super::{answer, answers, build, build_at, link_error};
use crate::support::{Log, admit};

/// Makes these definitions global, as those of a library that the host was linked with are.
fn in_the_host(text: &str) -> TemporaryFolder {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    let folder = TemporaryFolder::new();
    let path = folder.path().join("libhost.so");
    build_at(&path, "cc", text, &[]).expect("a C compiler is needed for the tests");
    // SAFETY: a library without constructors.
    std::mem::forget(unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL).unwrap() });
    folder
}

fn interposed(bytes: &[u8]) -> Vec<(String, Replaced)> {
    let linkage = hotslot::inspect(bytes).unwrap().linkage.unwrap();
    linkage.interposed.into_iter().map(|found| (found.symbol, found.replaces)).collect()
}

const BUNDLED: &str = "int helper(void) { return 2; } int answer(void) { return helper(); }";

/// Row 56.
#[test]
fn row_56_a_function_that_the_host_has_too_is_reported() {
    alone(|| {
        let bundled = build("cc", BUNDLED, &["-fno-inline"]).unwrap();
        assert_eq!(interposed(&bundled), []);
        let _host = in_the_host("int helper(void) { return 1; }");
        assert_eq!(interposed(&bundled), [("helper".to_owned(), Replaced::Own)]);
        let slot = HotSlot::builder(answers()).open(&bundled).unwrap();
        assert_eq!(answer(&slot), 1, "this is what is reported");
        for flag in ["-Wl,-Bsymbolic", "-fvisibility=hidden"] {
            let text = BUNDLED.replace("int answer", "__attribute__((visibility(\"default\"))) int answer");
            let own = build("cc", &text, &["-fno-inline", flag]).unwrap();
            assert_eq!(interposed(&own), [], "{flag}");
            slot.reload(own).unwrap();
            assert_eq!(answer(&slot), 2, "{flag}");
        }
    });
}

/// Row 56: data of another size would be read and written beyond its end.
#[test]
fn row_56_data_of_another_size_is_refused() {
    alone(|| {
        let _host = in_the_host("int table[4] = {1, 1, 1, 1};");
        let text = "int table[64] = {2}; int answer(void) { return table[0]; }";
        let bytes = build("cc", text, &[]).unwrap();
        let error = link_error(&answers(), &bytes);
        let LinkError::ReplacedData { library: None, symbol, size: 256, host_size: 16, by } = &error else {
            panic!("{error}")
        };
        assert!(symbol == "table" && by.ends_with("libhost.so"), "{error}");
        assert!(error.to_string().contains("-Bsymbolic"), "{error}");

        let same = build("cc", &text.replace("64", "4"), &[]).unwrap();
        admit(&answers(), &same).unwrap();
        assert_eq!(interposed(&same), [("table".to_owned(), Replaced::Own)]);
        admit(&answers(), build("cc", text, &["-Wl,-Bsymbolic"]).unwrap()).unwrap();
        admit(&answers().dangerous().allow_replaced_data(), &bytes).unwrap();
    });
}

/// Row 56: a library that the plugin was linked with does not get a say, either.
#[test]
fn row_56_a_needed_library_that_gives_way_to_the_host_is_reported() {
    alone(|| {
        let folder = TemporaryFolder::new();
        build_at(&folder.path().join("libbundle.so"), "cc", "int helper(void) { return 2; }", &[]).unwrap();
        let path = folder.path().to_str().unwrap();
        let flags = [&format!("-L{path}"), "-lbundle", &format!("-Wl,-rpath,{path}")];
        let bytes = build("cc", "int helper(void); int answer(void) { return helper(); }", &flags).unwrap();
        let _host = in_the_host("int helper(void) { return 1; }");
        let slot = HotSlot::builder(answers()).open(&bytes).unwrap();
        assert_eq!(answer(&slot), 1);
        assert_eq!(
            interposed(&bytes),
            [("helper".to_owned(), Replaced::Needed { library: "libbundle.so".to_owned() })]
        );
    });
}

/// Row 56: one line for all of them; weak definitions are meant to give way, and are only listed.
#[test]
fn row_56_strong_definitions_that_give_way_are_logged_in_one_line() {
    alone(|| {
        let log = Log::capture();
        let _host =
            in_the_host("int helper(void) { return 1; } int second(void) { return 1; } int weak(void) { return 1; }");
        let text = "int helper(void) { return 2; } int second(void) { return 2; }\n\
                    __attribute__((weak)) int weak(void) { return 2; }\n\
                    int answer(void) { return helper() + second() + weak(); }";
        let bytes = build("cc", text, &["-fno-inline"]).unwrap();
        admit(&answers(), &bytes).unwrap();
        let [line] = &log.warnings()[..] else { panic!("one line: {:?}", log.warnings()) };
        assert!(line.contains("helper") && line.contains("second") && !line.contains("weak"), "{line}");
        assert!(interposed(&bytes).contains(&("weak".to_owned(), Replaced::OwnWeak)));
    });
}

/// Row 56: plugins in Rust and C that nobody tampered with load without a warning.
#[test]
fn row_56_ordinary_plugins_load_without_a_warning() {
    alone(|| {
        let log = Log::capture();
        let plugins = HotSlot::builder(super::super::native().without_rehearsal()).open(fixture()).unwrap();
        plugins.reload(fixture().answering(2)).unwrap();
        let slot = HotSlot::builder(answers().without_rehearsal()).open(c_answering(1)).unwrap();
        slot.reload(c_answering(2)).unwrap();
        assert_eq!(log.warnings(), Vec::<String>::new());
    });
}

/// Row 56: no false alarm for what every library has.
#[test]
fn row_56_ordinary_libraries_raise_no_alarm() {
    for bytes in [fixture().into_bytes(), c_answering(1)] {
        assert_eq!(interposed(&bytes), []);
    }
}

/// Row 56: data of a library that comes along gives way just as the plugin's own.
#[test]
fn row_56_data_of_another_size_in_a_needed_library_is_refused() {
    alone(|| {
        let _host = in_the_host("int table[4] = {1, 1, 1, 1};");
        let folder = TemporaryFolder::new();
        let path = folder.path().to_str().unwrap();
        let text = "int table[64] = {2}; int last(void) { return table[63]; }";
        build_at(&folder.path().join("libbrings.so"), "cc", text, &[]).unwrap();
        let flags = [&format!("-L{path}"), "-lbrings", &format!("-Wl,-rpath,{path}")];
        let bytes = build("cc", "int last(void); int answer(void) { return last(); }", &flags).unwrap();
        let error = link_error(&answers(), &bytes);
        let LinkError::ReplacedData { library: Some(library), symbol, size: 256, host_size: 16, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((&**library, &**symbol), ("libbrings.so", "table"));
        admit(&answers().dangerous().allow_replaced_data(), &bytes).unwrap();
    });
}

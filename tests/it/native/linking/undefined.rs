//! Row 4: who has to provide what is undefined.

use hotslot::HotSlot;
use hotslot::native::LibraryError;

use super::super::process::alone;
use super::{TemporaryFolder, answers, build, build_at};

/// The hint of the loader's refusal.
#[track_caller]
fn hint(bytes: &[u8]) -> String {
    let error = HotSlot::builder(answers()).open(bytes).expect_err("it was loaded");
    assert_eq!(error.stage(), hotslot::Stage::Load, "{error}");
    let LibraryError::Refused { hint, .. } = super::reason(&error) else { panic!("{error}") };
    hint.clone()
}

fn calling(symbol: &str, flags: &[&str]) -> Vec<u8> {
    build("cc", &format!("int {symbol}(void); int answer(void) {{ return {symbol}(); }}"), flags).unwrap()
}

#[unsafe(no_mangle)]
extern "C" fn hotslot_tests_hidden_in_the_host() -> i32 {
    7
}

#[test]
fn row_4_an_undefined_symbol_says_who_has_to_provide_it() {
    let text = hint(&calling("nobody_has_this", &[]));
    assert!(text.contains("link what does into the plugin") && text.contains("names"), "{text}");
    assert!(hint(&calling("_ZNSt8ios_base4InitC1Ev_", &[])).contains("-lstdc++"));
    assert!(hint(&calling("__asan_init_", &[])).contains("sanitizer"));
}

#[test]
fn row_4_a_symbol_that_the_host_has_and_hides_is_known() {
    assert_eq!(hotslot_tests_hidden_in_the_host(), 7, "the linker keeps it");
    let text = hint(&calling("hotslot_tests_hidden_in_the_host", &[]));
    assert!(text.contains("-rdynamic"), "{text}");
}

#[test]
fn row_4_a_symbol_of_a_mapped_library_that_is_not_named_is_known() {
    alone(|| {
        let folder = TemporaryFolder::new();
        let helper = folder.path().join("libhelping.so");
        build_at(&helper, "cc", "int helping(void) { return 1; }", &[]).unwrap();
        // SAFETY: a library without constructors.
        std::mem::forget(unsafe { libloading::Library::new(&helper).unwrap() });
        let text = hint(&calling("helping", &[]));
        assert!(text.contains("libhelping.so") && text.contains("link the plugin with it"), "{text}");
    });
}

/// The needed libraries are named.
#[test]
fn row_4_the_libraries_that_the_plugin_names_are_listed() {
    let text = hint(&calling("nobody_has_this", &["-Wl,--no-as-needed", "-lm"]));
    assert!(text.contains("libm.so.6"), "{text}");
}

/// Row 54: a search path relative to the plugin leads nowhere.
#[test]
fn row_54_a_search_path_relative_to_the_plugin_is_named() {
    let folder = TemporaryFolder::new();
    let helper = folder.path().join("libbeside.so");
    build_at(&helper, "cc", "int beside(void) { return 1; }", &[]).unwrap();
    let search = format!("-L{}", folder.path().to_str().unwrap());
    for flags in ["-Wl,-rpath,$ORIGIN/lib", "-Wl,-rpath,${ORIGIN}", "-Wl,--disable-new-dtags,-rpath,$ORIGIN"] {
        let plugin = calling("beside", &[&search, "-lbeside", flags]);
        let text = hint(&plugin);
        assert!(text.contains("ORIGIN") && text.contains("leads nowhere"), "{text}");
        let linkage = hotslot::inspect(&plugin).unwrap().linkage.unwrap();
        assert!(linkage.search_path[0].contains("ORIGIN"), "{linkage:?}");
        assert_eq!(linkage.needed[0].name, "libbeside.so");
        assert_eq!(linkage.needed[0].mapped, None);
    }
}

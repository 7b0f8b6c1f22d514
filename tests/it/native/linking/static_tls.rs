//! Row 55: the loader's fixed reserve for thread-local storage.

use hotslot::HotSlot;
use hotslot::native::{Budget, LibraryError, LinkError};

use super::super::process::alone;
use super::{answer, answers, build, link_error};
use crate::support::admit;

const STORAGE: &str = include_str!("../../../fixtures/static_tls.c");

fn taking(size: u32, version: u32) -> Vec<u8> {
    build("cc", STORAGE, &[&format!("-DSIZE={size}"), &format!("-DV={version}")]).expect("a C compiler is needed")
}

fn is_known() -> bool {
    cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))
}

/// Row 55.
#[test]
fn row_55_more_static_tls_than_there_is_is_refused_at_admission_with_the_remedy() {
    if !is_known() {
        return println!("skipped: what is left of the reserve is not known here");
    }
    alone(|| {
        let error = link_error(&answers(), &taking(2600, 1));
        assert!(matches!(error, LinkError::StaticTls { size, free } if size >= 2600 && free < 2600), "{error}");
        for words in ["-ftls-model=global-dynamic", "-mtls-dialect=gnu2", "glibc.rtld.optional_static_tls"] {
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(hotslot::inspect(&taking(2600, 1)).unwrap().linkage.unwrap().static_tls >= 2600);
    });
}

/// Row 55: the loader is never asked for more than it has: the first refusal is at admission, and foretells the loader's.
#[test]
fn row_55_static_tls_that_runs_out_is_foreseen() {
    if !is_known() {
        return println!("skipped: what is left of the reserve is not known here");
    }
    alone(|| {
        let slot = HotSlot::builder(answers()).open(taking(200, 1)).unwrap();
        let mut loaded = 1;
        let error = loop {
            match slot.reload(taking(200, loaded + 1)) {
                Ok(_) => loaded += 1,
                Err(error) => break error,
            }
            assert!(loaded < 100, "the reserve has no end");
        };
        println!("{loaded} libraries of 200 bytes each were loaded");
        assert_eq!(error.stage(), hotslot::Stage::Admit, "{error}");
        let LinkError::StaticTls { free, .. } = super::reason(&error) else { panic!("{error}") };
        // The foresight is exact: what is left is too little for this one, and enough for one that fits.
        assert!(*free < 200, "{free}");
        if *free >= 8 {
            slot.reload(taking(*free as u32 / 2, 77)).unwrap();
            assert_eq!(answer(&slot), 77_001);
        }
        let model = build("cc", &STORAGE.replace("initial-exec", "global-dynamic"), &["-DSIZE=200", "-DV=88"]).unwrap();
        slot.reload(model).unwrap();
        assert_eq!(answer(&slot), 88_001);
    });
}

/// Row 55: a host may want to keep some of it for itself.
#[test]
fn row_55_static_tls_has_a_budget_of_its_own() {
    alone(|| {
        let backend = answers().budget(Budget { static_tls: 500, ..Budget::default() });
        let slot = HotSlot::builder(backend).open(taking(200, 1)).unwrap();
        slot.reload(taking(200, 2)).unwrap();
        let error = slot.reload(taking(200, 3)).unwrap_err();
        let LinkError::StaticTlsBudget { taken, budget: 500 } = super::reason(&error) else { panic!("{error}") };
        assert!(*taken >= 600, "{taken}");
        assert!(error.to_string().contains("-ftls-model=global-dynamic"), "{error}");
        assert_eq!(answer(&slot), 2001);
    });
}

/// Builds a library that needs another one in `folder`, which takes so many bytes of the reserve, and looks for it there by a path
/// that begins with `root`.
fn needing(folder: &super::TemporaryFolder, name: &str, size: u32, root: &str) -> Vec<u8> {
    let text = STORAGE.replace("answer", name).replace("version", &format!("{name}_version"));
    let helper = folder.path().join(format!("lib{name}.so"));
    super::build_at(&helper, "cc", &text, &[&format!("-DSIZE={size}"), "-DV=1"]).unwrap();
    let path = folder.path().to_str().unwrap();
    let flags = [&format!("-L{path}"), &format!("-l{name}"), &format!("-Wl,-rpath,{root}{path}")];
    let text = format!("int {name}(void); int answer(void) {{ return {name}(); }}");
    build("cc", &text, &flags.map(String::as_str)).unwrap()
}

/// Row 55: that is so for whatever comes later, too, once it is mapped.
#[test]
fn row_55_what_needed_libraries_take_is_counted_when_they_are_mapped() {
    alone(|| {
        let folder = super::TemporaryFolder::new();
        let plugin = needing(&folder, "counts", 200, "");
        let backend = || answers().budget(Budget { static_tls: 500, ..Budget::default() });
        let _needing = HotSlot::builder(backend()).open(plugin).unwrap();
        let slot = HotSlot::builder(backend()).open(taking(200, 1)).unwrap();
        let error = slot.reload(taking(200, 2)).unwrap_err();
        let LinkError::StaticTlsBudget { taken, budget: 500 } = super::reason(&error) else { panic!("{error}") };
        assert!(*taken >= 600, "{taken}");
    });
}

/// Row 55: what a needed library takes counts, too; where it is not found, the loader's own refusal has the same remedy.
#[test]
fn row_55_what_a_needed_library_takes_is_foreseen_or_said_by_the_loaders_refusal() {
    alone(|| {
        let folder = super::TemporaryFolder::new();
        let plugin = needing(&folder, "takes", 4000, "");
        if is_known() {
            let error = link_error(&answers(), &plugin);
            assert!(matches!(error, LinkError::StaticTls { size, .. } if size >= 4000), "{error}");
        }
        // Named by a path with a token of the loader's, which is not followed here.
        let plugin = needing(&folder, "takes", 4000, "/$LIB/../../../..");
        let error = HotSlot::builder(answers()).open(plugin).unwrap_err();
        let LibraryError::Refused { reason, hint } = super::reason(&error) else { panic!("{error}") };
        assert!(reason.contains("static TLS") && hint.contains("-ftls-model=global-dynamic"), "{error}");
    });
}

/// Row 55: no false alarm: storage of the usual model, and code that only uses the C library's.
#[test]
fn row_55_dynamic_storage_takes_nothing_of_the_reserve() {
    for text in [
        "__thread int mine[1000]; int answer(void) { return mine[0]++; }",
        "#include <errno.h>\nint answer(void) { return errno; }",
    ] {
        let bytes = build("cc", text, &[]).unwrap();
        assert_eq!(hotslot::inspect(&bytes).unwrap().linkage.unwrap().static_tls, 0, "{text}");
        admit(&answers(), &bytes).unwrap();
    }
}

//! Row 54: a needed library that is mapped already, and is no longer what lies on disk.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hotslot::native::{LinkError, RawNative};
use hotslot::{HotSlot, LibraryChange};

use super::super::fixtures::TemporaryFolder;
use super::super::process::alone;
use super::{Answer, answer, answers, build, build_at, link_error, refused};
use crate::support::admit;

const CORE: &str = include_str!("../../../fixtures/core.c");
const USER: &str = include_str!("../../../fixtures/usescore.c");

/// A folder with libcore.so in it, and plugins that need it.
struct Deployment(TemporaryFolder);

impl Deployment {
    fn new() -> Deployment {
        let deployment = Deployment(TemporaryFolder::new());
        deployment.build_core("libcore.so", CORE);
        deployment
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn build_core(&self, name: &str, text: &str) {
        build_at(&self.path(name), "cc", text, &["-Wl,-soname,libcore.so"]).expect("a C compiler is needed");
    }

    /// Another answer at the same path, as a package manager puts it there.
    fn replace_core(&self) {
        self.build_core("new.so", &CORE.replace('2', "3"));
        fs::rename(self.path("new.so"), self.path("libcore.so")).unwrap();
    }

    /// A plugin that needs libcore.so, found along `search_path`.
    fn plugin(&self, search_path: &Path, text: &str) -> Vec<u8> {
        let folder = format!("-L{}", self.0.path().to_str().unwrap());
        let search_path = format!("-Wl,-rpath,{}", search_path.to_str().unwrap());
        build("cc", text, &[&folder, "-lcore", &search_path]).unwrap()
    }

    fn plugins(&self) -> [Vec<u8>; 2] {
        let newer = USER.replace("return 2", "return 3");
        [self.plugin(self.0.path(), USER), self.plugin(self.0.path(), &newer)]
    }
}

#[track_caller]
fn changed(error: &LinkError, expected: &LibraryChange) {
    let LinkError::ChangedLibrary { name, path, change, .. } = error else { panic!("{error}") };
    assert_eq!((&**name, change), ("libcore.so", expected), "{error}");
    assert!(path.ends_with("libcore.so"), "{path}");
    assert!(error.to_string().contains("allow_changed_libraries"), "{error}");
}

/// Row 54.
#[test]
fn row_54_a_library_that_was_replaced_is_refused_and_listed() {
    alone(|| {
        let deployment = Deployment::new();
        let [first, second] = deployment.plugins();
        let slot = HotSlot::builder(answers()).open(&first).unwrap();
        assert_eq!(answer(&slot), 2000);
        slot.reload(&second).expect("nothing has changed yet");

        deployment.replace_core();
        changed(&refused(&slot, &first), &LibraryChange::Replaced);
        assert_eq!(answer(&slot), 2000);
        let listed = hotslot::inspect(&first).unwrap().linkage.unwrap().needed;
        let mapped = listed[0].mapped.clone().expect("it is mapped");
        assert_eq!(
            (mapped.path, mapped.change),
            (deployment.path("libcore.so").to_str().unwrap().to_owned(), Some(LibraryChange::Replaced))
        );
    });
}

/// Row 54: the same file, written anew.
#[test]
fn row_54_a_library_that_was_rewritten_in_place_is_refused() {
    alone(|| {
        let deployment = Deployment::new();
        let [first, second] = deployment.plugins();
        let slot = HotSlot::builder(answers()).open(&first).unwrap();
        // The same bytes, so that the mapped code stays what it was; a build would end the process. The times of a file are
        // no finer than the kernel's clock, which must have moved on.
        let path = deployment.path("libcore.so");
        let modified = || fs::metadata(&path).unwrap().modified().unwrap();
        let (before, bytes) = (modified(), fs::read(&path).unwrap());
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        while modified() == before {
            file.write_all_at(&bytes, 0).unwrap();
        }
        changed(&refused(&slot, &second), &LibraryChange::Rewritten);
    });
}

/// Row 54: what is mapped is nowhere any more.
#[test]
fn row_54_a_library_that_was_removed_is_refused() {
    alone(|| {
        let deployment = Deployment::new();
        let [first, second] = deployment.plugins();
        let slot = HotSlot::builder(answers()).open(&first).unwrap();
        fs::remove_file(deployment.path("libcore.so")).unwrap();
        changed(&refused(&slot, &second), &LibraryChange::Removed);
    });
}

/// Row 54: the new version has a folder of its own, and the loader does not look there.
#[test]
fn row_54_a_search_path_to_another_file_is_refused() {
    alone(|| {
        let (old, new) = (Deployment::new(), Deployment::new());
        let slot = HotSlot::builder(answers()).open(&old.plugins()[0]).unwrap();
        slot.reload(&new.plugins()[1]).expect("a copy of the same library is as good");
        new.replace_core();
        let path = new.path("libcore.so").to_str().unwrap().to_owned();
        changed(&refused(&slot, &new.plugins()[0]), &LibraryChange::Elsewhere { path });
    });
}

/// Row 54: the loader knows a mapped library by its `DT_SONAME`, whatever its file is called.
#[test]
fn row_54_a_library_is_known_by_its_soname() {
    alone(|| {
        let deployment = Deployment::new();
        let [first, _] = deployment.plugins();
        fs::copy(deployment.path("libcore.so"), deployment.path("core-1.so")).unwrap();
        // SAFETY: a library without constructors.
        std::mem::forget(unsafe { libloading::Library::new(deployment.path("core-1.so")).unwrap() });
        admit(&answers(), &first).expect("the same content under two names is as good");
        deployment.replace_core();
        let error = link_error(&answers(), &first);
        assert!(matches!(&error, LinkError::ChangedLibrary { path, .. } if path.ends_with("core-1.so")), "{error}");
    });
}

/// Row 54: the library that changed is needed by one that did not, mapped or not.
#[test]
fn row_54_a_library_that_another_one_needs_is_compared_too() {
    alone(|| {
        let deployment = Deployment::new();
        let folder = deployment.0.path().to_str().unwrap();
        let text = "int core_answer(void); int middle_answer(void) { return core_answer(); }";
        for middle in ["libone.so", "libtwo.so"] {
            let flags = [&format!("-L{folder}"), "-lcore", "-Wl,-rpath,$ORIGIN"];
            build_at(&deployment.path(middle), "cc", text, &flags).unwrap();
        }
        let plugin = |middle: &str| {
            let text = "int middle_answer(void); int answer(void) { return middle_answer(); }";
            let flags =
                [&format!("-L{folder}"), middle, &format!("-Wl,-rpath,{folder}"), &format!("-Wl,-rpath-link,{folder}")];
            build("cc", text, &flags).unwrap()
        };
        let slot = HotSlot::builder(answers()).open(plugin("-lone")).unwrap();
        assert_eq!(answer(&slot), 2000);
        deployment.replace_core();
        for (middle, name) in [("-lone", "libone.so"), ("-ltwo", "libtwo.so")] {
            let error = link_error(&answers(), &plugin(middle));
            changed(&error, &LibraryChange::Replaced);
            assert!(error.to_string().contains(&format!("through {name}")), "{error}");
        }
    });
}

/// Row 54: a generation of another slot with that `DT_SONAME` is what the loader would take.
#[test]
fn row_54_a_generation_is_no_library_for_others() {
    alone(|| {
        let deployment = Deployment::new();
        // SAFETY: a library without constructors.
        let backend: RawNative<()> = unsafe { hotslot::native::Native::raw(|_| Ok(())) };
        let slot = HotSlot::builder(backend).open(fs::read(deployment.path("libcore.so")).unwrap()).unwrap();
        let error = link_error(&answers(), &deployment.plugins()[0]);
        assert!(matches!(&error, LinkError::ChangedLibrary { change: LibraryChange::Generation, .. }), "{error}");
        drop(slot);
    });
}

/// Row 54: a host may know better.
#[test]
fn row_54_changed_libraries_can_be_allowed() {
    alone(|| {
        let deployment = Deployment::new();
        let [first, second] = deployment.plugins();
        let backend: RawNative<Answer> = answers().dangerous().allow_changed_libraries();
        let slot = HotSlot::builder(backend).open(&first).unwrap();
        deployment.replace_core();
        slot.reload(&second).unwrap();
        assert_eq!(answer(&slot), 2000, "the old one answers, as the warning says");
    });
}

/// Row 54: the C runtime, which an update of the system replaces under every process.
#[test]
fn row_54_the_c_runtime_is_not_compared() {
    alone(|| {
        // A library of that name, which nothing here needs; the system's own is not replaced for a test.
        const NAME: &str = "libanl.so.1";
        let deployment = Deployment::new();
        let build_runtime = |name: &str| {
            build_at(&deployment.path(name), "cc", CORE, &[&format!("-Wl,-soname,{NAME}")]).unwrap();
        };
        build_runtime(NAME);
        let folder = deployment.0.path().to_str().unwrap();
        let flags = [&*format!("-L{folder}"), &format!("-l:{NAME}"), &format!("-Wl,-rpath,{folder}")];
        let bytes = build("cc", USER, &flags).unwrap();
        let slot = HotSlot::builder(answers()).open(&bytes).unwrap();
        build_runtime("new.so");
        fs::rename(deployment.path("new.so"), deployment.path(NAME)).unwrap();
        admit(&answers(), &bytes).expect("it is not compared");
        let listed = hotslot::inspect(&bytes).unwrap().linkage.unwrap().needed;
        let mapped = listed.iter().find(|library| library.name == NAME).and_then(|library| library.mapped.as_ref());
        assert_eq!(mapped.expect("it is listed").change, None);
        drop(slot);
    });
}

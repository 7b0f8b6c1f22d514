//! Libraries that no Rust compiler made: a plugin that follows the ABI by hand, and ones that never heard of it.

use std::ffi::{CStr, c_char, c_void};
use std::sync::mpsc::channel;

use hotslot::host::{CallError, CallErrorKind, ConfigUnsupported};
use hotslot::native::Native;
use hotslot::{Candidate, Digest, ErrorKind, HotSlot, Lease, Stage};
use hotslot_plugin::abi::Status;

use super::methods::{ECHO, FAIL, PANIC, SEND};
use super::{add, answer, c_answering, c_library, native};

#[test]
fn a_plugin_in_c_follows_the_documented_abi() {
    let (send, sent) = channel();
    let backend = native().on_message(move |sender, message| {
        send.send((sender.name.clone(), message.to_vec())).unwrap();
    });
    let slot = HotSlot::builder(backend).open(c_library("counter.c", &[])).unwrap();
    let plugin = slot.load();
    assert_eq!((&*plugin.manifest().name, answer(&plugin)), ("counter", 42));
    assert_eq!((add(&plugin, 2), add(&plugin, 3)), (2, 5));
    assert_eq!(plugin.call(ECHO, &[7; 1000]).unwrap(), [7; 1000]);
    assert_eq!(plugin.call(FAIL, b"no"), Err(CallError::failed("no")));
    assert_eq!(plugin.call(PANIC, b"").unwrap_err().kind(), CallErrorKind::Unsupported);
    let unknown = plugin.call(99, b"").unwrap_err();
    assert_eq!((unknown.kind(), unknown.to_string().contains("status 99")), (CallErrorKind::Malformed, true));
    plugin.call(SEND, b"from C").unwrap();
    assert_eq!(sent.try_recv().unwrap(), ("counter".to_owned(), b"from C".to_vec()));

    type Twice = unsafe extern "C" fn(*const c_void, i64, *mut i64) -> Status;
    let mut out = 0;
    // SAFETY: counter.c has this function first in its table, and the lease is held.
    unsafe {
        let twice = plugin.function::<Twice>(0).unwrap();
        assert_eq!((twice(plugin.instance(), 21, &mut out), out), (Status::OK, 42));
        assert!(plugin.function::<Twice>(1).is_none());
    }
}

type Answer = unsafe extern "C" fn() -> i32;

#[test]
fn a_library_without_a_descriptor_takes_its_version_from_the_caller() {
    // SAFETY: answer.c has no constructors, and the type is its own.
    let backend = unsafe { Native::raw(|library| Ok(library.get::<Answer>("answer")?)) }.require(["answer"]);
    let version = |text: &str| text.parse().unwrap();
    let slot = HotSlot::builder(backend).open(Candidate::new(c_answering(1)).version(version("1.0.0"))).unwrap();
    // SAFETY: as above, behind a lease.
    let ask = || unsafe { slot.load()() };
    assert_eq!(ask(), 1);
    slot.reload(Candidate::new(c_answering(2)).version(version("1.1.0"))).unwrap();
    assert_eq!(ask(), 2);
    let lease = slot.load();
    assert_eq!((Lease::version(&lease), Lease::digest(&lease)), (Some(&version("1.1.0")), Digest::of(&c_answering(2))));
    assert_eq!((&*Lease::manifest(&lease).name, &Lease::manifest(&lease).interface), ("", &None));

    let error = slot.reload(Candidate::new(c_answering(3)).version(version("1.0.9"))).unwrap_err();
    assert_eq!(error.stage(), Stage::Admit);
    assert!(matches!(error.kind(), ErrorKind::Version(_)), "{error}");
    slot.rollback().unwrap();
    assert_eq!(ask(), 1);
}

#[test]
fn a_raw_library_takes_no_configuration() {
    // SAFETY: the library has no constructors, and the type is the one in answer.c.
    let backend = unsafe { Native::raw(|library| Ok(library.get::<Answer>("answer")?)) };
    let slot = HotSlot::builder(backend).open(c_answering(1)).unwrap();
    let error = slot.reload(Candidate::new(c_answering(2)).config("answer = 3")).unwrap_err();
    assert_eq!(error.stage(), Stage::Admit);
    let ErrorKind::Refused(reason) = error.kind() else { panic!("{error}") };
    assert!(reason.is::<ConfigUnsupported>() && reason.to_string().contains("leave out"), "{reason}");
    // SAFETY: a function that takes nothing, behind a lease.
    assert_eq!(unsafe { slot.load()() }, 1);
}

#[cfg(target_env = "gnu")]
#[test]
fn a_library_of_the_system_can_sit_in_a_slot() {
    // SAFETY: asks for the name of the C library's version, which is a constant text.
    let release = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    let found = super::mapped("/libm").into_iter().chain(super::mapped("/libc.so")).next().expect("it is linked");
    let folder = std::path::Path::new(found.split_whitespace().last().unwrap()).parent().unwrap().to_owned();
    let Ok(libm) = std::fs::read(folder.join("libm.so.6")) else { return println!("skipped: no libm.so.6 here") };

    type Root = unsafe extern "C" fn(f64) -> f64;
    // SAFETY: libm's constructors are harmless, and the type is that in math.h.
    let backend = unsafe { Native::raw(|library| Ok(library.get::<Root>("sqrt")?)) }.require(["sqrt"]);
    let version = format!("{}.0", release.to_str().unwrap()).parse().unwrap();
    let slot = HotSlot::builder(backend).open(Candidate::new(libm).version(version)).unwrap();
    // SAFETY: as above, behind a lease.
    assert_eq!(unsafe { slot.load()(9.0) }, 3.0);
}

/// A binder may make whatever it wants of a library.
#[test]
fn a_binder_makes_a_safe_type_of_a_library() {
    struct Safe(Answer);
    impl Safe {
        fn answer(&self) -> i32 {
            // SAFETY: the function takes nothing, and the slot keeps its code mapped as long as this lives.
            unsafe { (self.0)() }
        }
    }
    // SAFETY: as above.
    let backend = unsafe {
        Native::raw(|library| {
            library.get::<*const c_char>("nothing").expect_err("there is no such thing");
            Ok(Safe(library.get("answer")?))
        })
    };
    let slot = HotSlot::builder(backend).open(c_answering(5)).unwrap();
    assert_eq!(slot.load().answer(), 5);
}

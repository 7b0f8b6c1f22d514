//! The fixture among the other kinds of plugins: the same source, three ways.

use hotslot::native::Native;
use hotslot::{Admission, Artifact, Backend, BoxError, LoadContext, Loaded, Manifest, Payload};
use hotslot_fixture_interface::v1_0::Fixture;
use hotslot_fixture_typed::Counter;

use super::{built, modules};
use crate::conformance::Kind;
use crate::support::trust;

/// What all three have in common.
macro_rules! typed {
    ($kind:ident, $is_here:expr, $backend:expr, $artifact:expr) => {
        impl Kind for $kind {
            type Plugin = dyn Fixture;

            fn is_here() -> bool {
                $is_here
            }

            fn backend() -> impl Backend<dyn Fixture> {
                $backend
            }

            fn artifact(version: &str, answer: u64) -> Vec<u8> {
                $artifact(version, answer)
            }

            fn answer(plugin: &dyn Fixture) -> u64 {
                plugin.answer()
            }

            fn add(plugin: &dyn Fixture, more: u64) -> u64 {
                plugin.add(more)
            }
        }
    };
}

/// As a library.
pub(crate) struct Library;

typed!(Library, true, Native::interface::<dyn Fixture>(trust()), |version: &str, answer| {
    built::library("").version(version).answering(answer).bytes()
});

/// As a module.
pub(crate) struct Module;

typed!(Module, built::module("").is_some(), modules::<dyn Fixture>(), |version: &str, answer| {
    built::module("").expect("it is here").version(version).answering(answer).bytes()
});

/// In this process.
pub(crate) struct InProcess;

typed!(InProcess, true, Linked, |version: &str, answer| format!("fixture {version} {answer}").into_bytes());

/// A backend whose artifacts only say which version of a plugin that is linked here they are, and what it answers.
struct Linked;

impl Backend<dyn Fixture> for Linked {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        let text = std::str::from_utf8(payload.bytes())?;
        let mut words = text.split(' ');
        let (Some("fixture"), Some(version), Some(answer)) = (words.next(), words.next(), words.next()) else {
            return Err("this is no fixture".into());
        };
        let _: u64 = answer.parse()?;
        Ok(Manifest::new("fixture").with_version(version.parse()?).into())
    }

    fn load(&self, artifact: &Artifact, _: &LoadContext) -> Result<Loaded<dyn Fixture>, BoxError> {
        let text = std::str::from_utf8(artifact.bytes())?;
        let answer = text.rsplit(' ').next().unwrap_or_default().to_owned();
        let plugin = hotslot_plugin::harness!(Counter as Fixture).config(format!("answer {answer}")).start()?;
        Ok(Loaded::boxed(plugin.into_plugin()))
    }
}

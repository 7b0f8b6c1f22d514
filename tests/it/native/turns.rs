//! Plugins of different kinds in one slot: what a trait object makes of a native plugin.

use hotslot::native::{Native, NativePlugin};
use hotslot::{Admission, Artifact, Backend, BoxError, HotSlot, LoadContext, Loaded, Manifest, Payload};

use super::process::alone;
use super::{answering, destroyed, elsewhere, frees, is_freed, mapped, native};

/// What the host wants of a plugin, wherever it comes from.
trait Pricer: Send + Sync {
    fn price(&self) -> u32;
}

impl Pricer for NativePlugin {
    fn price(&self) -> u32 {
        super::answer(self)
    }
}

/// The one that is built in.
struct Fixed(u32);

impl Pricer for Fixed {
    fn price(&self) -> u32 {
        self.0
    }
}

/// Takes libraries, and numbers written out.
struct Either(Native);

impl Backend<dyn Pricer> for Either {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        if payload.bytes().starts_with(b"\x7fELF") {
            return self.0.admit(payload);
        }
        std::str::from_utf8(payload.bytes())?.parse::<u32>()?;
        Ok(Manifest::new("fixed").into())
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<dyn Pricer>, BoxError> {
        if artifact.bytes().starts_with(b"\x7fELF") {
            return Ok(self.0.load(artifact, context)?.map::<dyn Pricer>(|plugin| plugin));
        }
        Ok(Loaded::boxed(Box::new(Fixed(std::str::from_utf8(artifact.bytes())?.parse()?))))
    }
}

#[test]
fn a_native_plugin_and_a_value_take_turns_and_the_library_is_still_released() {
    alone(|| {
        let backend = Either(native().unload(hotslot::native::Unload::WhenIdle));
        let slot: HotSlot<dyn Pricer> = HotSlot::builder(backend).name("turns").keep_previous(0).open(b"7").unwrap();
        let events = slot.subscribe();
        let price = || elsewhere(|| slot.load().price());
        assert_eq!(price(), 7);
        let mut turns = 0..;
        frees(|| {
            let turn: u32 = turns.next().unwrap();
            elsewhere(|| slot.reload(answering(100 + turn)).unwrap());
            assert_eq!(price(), 100 + turn);
            elsewhere(|| slot.reload(format!("{turn}").into_bytes()).unwrap());
            let release = destroyed(&events, u64::from(2 * turn + 2));
            assert_eq!(mapped(&format!("turns-{}.", 2 * turn + 2)).is_empty(), is_freed(&release));
            assert_eq!(price(), turn);
            release
        });
    });
}

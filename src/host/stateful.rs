//! A plugin of a declared interface has state and can run, like any other: through the link behind its proxy.

use hotslot_plugin::{Interface, Stop};

use crate::{BoxError, Runnable, State, Stateful, StopSignal};

/// An implementation that is no plugin (one that the host made itself) has no state.
impl<I: Interface + ?Sized> Stateful for I {
    fn save(&self) -> Result<Option<State>, BoxError> {
        let Some(link) = self.link() else { return Ok(None) };
        Ok(link.save()?.map(|(schema, bytes)| State { schema, bytes }))
    }

    fn restore(&self, state: &State) -> Result<(), BoxError> {
        let link = self.link().ok_or("this is no plugin: it has no state to hand over")?;
        link.restore(&state.schema, &state.bytes)
    }
}

impl<I: Interface + ?Sized> Runnable for I {
    fn run(&self, stop: &StopSignal) -> Result<(), BoxError> {
        let link = self.link().ok_or("this is no plugin: it does not run")?;
        link.run(Stop::of(stop.flag()))
    }
}

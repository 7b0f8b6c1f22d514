//! What a plugin implements.

use crate::error::Unsupported;
use crate::{Error, Host, Stop};

/// A plugin: one instance of the implementing type lives for as long as the host keeps the generation.
///
/// Every method is called through a shim that catches panics, and may be called from any thread. Only
/// [`create`](Plugin::create) must be written; what is not overridden is answered to the host as "not supported".
pub trait Plugin: Sized + Send + Sync + 'static {
    /// What the host and the plugin agree to speak in the raw layer, for instance `"trader-feed/1"`: at most 95 bytes,
    /// compared for equality by the host before it loads the plugin. A declared interface takes its place.
    const INTERFACE: &'static str = "";

    /// The layout of the state that [`save`](Plugin::save) gives, for instance `"indicator/1"`: at most 95 bytes.
    /// Empty, the default, says that the plugin has no state to hand over.
    const SCHEMA: &'static str = "";

    /// Makes the instance. Threads that it starts must end soon after [`Host::stop`] is raised.
    fn create(host: Host) -> Result<Self, Error>;

    /// Runs until `stop` is raised, then returns; for plugins that are run rather than called.
    ///
    /// It may be called again after it returned: a rollback runs the same instance once more, with its state.
    fn run(&self, stop: &Stop) -> Result<(), Error> {
        let _ = stop;
        Err(Unsupported.into())
    }

    /// Runs first in an instance of a module that continues from a snapshot of the instance that [`create`](Plugin::create)
    /// made, as other instances do, too: for what must not be the same in all of them, such as a seed, or has changed
    /// meanwhile, such as the time. Only a host whose backend pre-initializes modules takes one; nothing else calls this.
    ///
    /// An error refuses the call that the instance was made for.
    fn resume(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Answers one call: a method number and bytes, whose meaning the interface defines.
    fn call(&self, method: u32, input: &[u8]) -> Result<Vec<u8>, Error> {
        let _ = (method, input);
        Err(Unsupported.into())
    }

    /// Saves the state as bytes of the layout [`SCHEMA`](Plugin::SCHEMA), for the plugin that comes next.
    fn save(&self) -> Result<Vec<u8>, Error> {
        Err(Unsupported.into())
    }

    /// Takes over the state of the plugin before, which was saved under `schema`: it may be an older layout than
    /// [`SCHEMA`](Plugin::SCHEMA). An error refuses the hand-over, and with it the reload.
    fn restore(&self, schema: &str, state: &[u8]) -> Result<(), Error> {
        let _ = (schema, state);
        Err(Unsupported.into())
    }
}

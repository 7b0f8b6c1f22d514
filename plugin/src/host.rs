//! The host as a plugin sees it: log, messages, configuration, stop signal.

use crate::Stop;
use crate::abi::{HostApi, Slice};

/// The severity of a log line; the numbers are those of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something may fail.
    Warn = 2,
    /// Something worth knowing happened.
    Info = 3,
    /// For the author.
    Debug = 4,
    /// For the author, in detail.
    Trace = 5,
}

impl Level {
    /// Returns the level of this number. Those below the ABI's are errors, and those above it traces.
    pub fn of(number: u32) -> Level {
        match number {
            0 | 1 => Level::Error,
            2 => Level::Warn,
            3 => Level::Info,
            4 => Level::Debug,
            _ => Level::Trace,
        }
    }
}

/// The host of this plugin. It is a reference: copy it freely, also into threads.
#[derive(Clone, Copy)]
pub struct Host {
    api: &'static HostApi,
}

impl Host {
    /// Makes the host behind `api`.
    ///
    /// # Safety
    /// `api` must stay valid for as long as the plugin's code is mapped.
    pub unsafe fn from_ptr(api: *const HostApi) -> Host {
        // SAFETY: P1, which this function demands: it is valid while the plugin's code is mapped, and no code of the
        // plugin runs after that, so 'static is long enough.
        Host { api: unsafe { &*api } }
    }

    pub(crate) fn api(&self) -> &'static HostApi {
        self.api
    }

    /// Writes `message` to the host's log, under the target `plugin`.
    pub fn log(&self, level: Level, message: &str) {
        self.log_as("plugin", level, message);
    }

    /// Writes `message` to the host's log, under a target of your own.
    pub fn log_as(&self, target: &str, level: Level, message: &str) {
        let (target, message) = (Slice::new(target.as_bytes()), Slice::new(message.as_bytes()));
        // SAFETY: H1: the context is the API's own. H2: the texts outlive the call.
        unsafe { (self.api.log)(self.api.context, level as u32, target, message) }
    }

    /// Returns whether anybody in the host listens to lines of this level, as far as its most verbose listener tells.
    pub fn is_logged(&self, level: Level) -> bool {
        if self.api.size < size_of::<HostApi>() {
            return true;
        }
        // SAFETY: H1: the context is the API's own.
        level as u32 <= unsafe { (self.api.log_level)(self.api.context) }
    }

    /// Writes an event with its target, message, fields and spans.
    #[cfg(any(feature = "log", feature = "tracing"))]
    pub(crate) fn event(&self, level: Level, [target, message, fields, spans]: [&str; 4]) {
        if self.api.size < size_of::<HostApi>() {
            return self.log_as(target, level, message);
        }
        let texts = [target, message, fields, spans].map(|text| Slice::new(text.as_bytes()));
        // SAFETY: H1: the context is the API's own. H2: the texts outlive the call.
        unsafe { (self.api.event)(self.api.context, level as u32, texts.as_ptr(), texts.len()) }
    }

    /// Sends `message` to the host; what it means is up to the interface.
    pub fn send(&self, message: &[u8]) {
        // SAFETY: H1: the context is the API's own. H2: the message outlives the call.
        unsafe { (self.api.send)(self.api.context, Slice::new(message)) }
    }

    /// Returns the configuration that the host gave this plugin; empty if none.
    pub fn config(&self) -> &'static [u8] {
        // SAFETY: P1: the configuration is part of the API, and valid for as long.
        unsafe { self.api.config.as_bytes() }
    }

    /// Returns the signal that is raised when this plugin is no longer current. A rollback can lower it again.
    pub fn stop(&self) -> &'static Stop {
        // SAFETY: P1: the flag is part of the API, and valid for as long.
        unsafe { Stop::from_ptr(self.api.stop) }
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

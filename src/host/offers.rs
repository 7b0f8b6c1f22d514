//! What a backend offers to its plugins, and the host as one of them reaches it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use hotslot_plugin::{CallError, CallErrorKind, Interface, Level};

use super::config::Config;
use super::contract::ContractError;
use super::log_rate::{LINES, Line, LogRate};
use super::plugin_info::{LogLine, PluginInfo};
use super::services::{BoundService, Services};
use crate::text::panic_text;
use crate::{Artifact, LoadContext, PluginScope};

/// Takes what plugins send.
type OnMessage = Arc<dyn Fn(&PluginInfo, &[u8]) + Send + Sync>;

/// What a backend offers to all of its plugins: a configuration, services, and somebody who takes their messages.
///
/// A backend keeps it with its settings, and makes a [`PluginHost`] of it at each load.
///
/// ```
/// use hotslot::host::Offers;
///
/// let offers = Offers::new()
///     .config(r#"{"fee": 0.1}"#)
///     .on_message(|plugin, message| println!("{} sent {} bytes", plugin.name, message.len()));
/// # let _ = offers;
/// ```
#[derive(Clone, Default)]
pub struct Offers {
    config: Config,
    services: Services,
    on_message: Option<OnMessage>,
}

impl Offers {
    /// Offers nothing: an empty configuration, no services, and messages are dropped.
    pub fn new() -> Offers {
        Offers::default()
    }

    /// Offers nothing, and claims to have every service: one that is asked for is found, and has no methods. For a
    /// rehearsal, which is of the plugin and not of its host.
    #[cfg(feature = "native")]
    pub(crate) fn for_rehearsal() -> Offers {
        Offers { services: Services::stand_in(), ..Offers::default() }
    }

    /// Configures plugins whose candidate does not [bring a configuration](crate::Candidate::config) with these bytes.
    pub fn config(mut self, config: impl AsRef<[u8]>) -> Offers {
        self.config = Config(config.as_ref().into());
        self
    }

    /// Takes what plugins send, on the threads that they send it from.
    pub fn on_message(mut self, take: impl Fn(&PluginInfo, &[u8]) + Send + Sync + 'static) -> Offers {
        self.on_message = Some(Arc::new(take));
        self
    }

    /// Offers an interface that the host implements. One of the same name and major version is replaced.
    pub fn service<S: Interface + ?Sized>(mut self, service: Arc<S>) -> Offers {
        self.services.offer(service);
        self
    }

    /// Makes the host of one plugin, when it is loaded. Its configuration is the artifact's, or else the one that was
    /// given [here](Offers::config).
    pub fn host_for(&self, artifact: &Artifact, context: &LoadContext) -> PluginHost {
        PluginHost {
            plugin: PluginInfo::new(context, artifact.manifest()),
            config: self.config.of(artifact),
            services: self.services.clone(),
            on_message: self.on_message.clone(),
            scope: context.scope.clone(),
            log_rate: LogRate::default(),
        }
    }
}

impl fmt::Debug for Offers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offers")
            .field("config", &self.config)
            .field("services", &self.services)
            .field("on_message", &self.on_message.is_some())
            .finish()
    }
}

/// The host as one plugin reaches it: its configuration, and what becomes of its log lines, messages and questions for
/// services.
///
/// The backend passes on what the plugin says, however that crosses. Bytes from a plugin are untrusted, and are checked
/// and made safe here. Whatever is called runs inside of the generation's [scope](PluginScope), and nothing panics: the
/// host's own code is behind `catch_unwind`.
pub struct PluginHost {
    plugin: PluginInfo,
    config: Arc<[u8]>,
    services: Services,
    on_message: Option<OnMessage>,
    scope: PluginScope,
    log_rate: LogRate,
}

impl PluginHost {
    /// Returns which plugin it is the host of.
    pub fn plugin(&self) -> &PluginInfo {
        &self.plugin
    }

    /// Returns the bytes that the plugin's `create` gets; empty if it is configured with none.
    pub fn config(&self) -> &Arc<[u8]> {
        &self.config
    }

    /// Writes a line of the plugin's to `tracing`, under the target `hotslot::plugin`; `target` is the plugin's own. The
    /// message is cut to 8 KiB, and its control characters are escaped. 500 lines of a generation are written in a second;
    /// more are dropped, which is logged with their number.
    pub fn log(&self, level: Level, target: Option<&[u8]>, message: &[u8]) {
        self.write(level, &LogLine { target, message, ..LogLine::default() });
    }

    fn write(&self, level: Level, line: &LogLine<'_>) {
        // A subscriber that panics must not unwind into the plugin, and there is nowhere left to say so.
        let _ = self.enter(|| {
            if !PluginInfo::is_logged(level) {
                return;
            }
            match self.log_rate.next(Instant::now()) {
                Line::Write { dropped } => {
                    self.log_dropped(dropped);
                    self.plugin.log(level, line);
                }
                Line::DropFirst => {
                    let text = format!("the plugin logs more than {LINES} lines a second: the rest is dropped");
                    self.plugin.log(Level::Warn, &LogLine::of(&text));
                }
                Line::Drop => {}
            }
        });
    }

    /// Writes an event of the plugin's to `tracing`, as [`log`](PluginHost::log) does with a line. The texts are those of
    /// [`HostApi::event`](hotslot_plugin::abi::HostApi::event): its target, its message, its fields, and the spans that it
    /// is in. Those that are missing or empty are left out.
    pub fn log_event(&self, level: Level, texts: &[&[u8]]) {
        self.write(level, &LogLine::of_event(texts));
    }

    /// Returns the most verbose level that anybody in the host listens to, as a number of the ABI; 0 if nobody does. A
    /// plugin asks it before it formats an event.
    pub fn log_level() -> u32 {
        use tracing::level_filters::LevelFilter;
        match LevelFilter::current() {
            LevelFilter::OFF => 0,
            LevelFilter::ERROR => Level::Error as u32,
            LevelFilter::WARN => Level::Warn as u32,
            LevelFilter::INFO => Level::Info as u32,
            LevelFilter::DEBUG => Level::Debug as u32,
            _ => Level::Trace as u32,
        }
    }

    fn log_dropped(&self, lines: u64) {
        if lines > 0 {
            self.plugin.log(Level::Warn, &LogLine::of(&format!("{lines} lines of the plugin's log were dropped")));
        }
    }

    /// Hands a message of the plugin's to the host's handler; without one, it is dropped.
    ///
    /// # Errors
    /// The handler panicked, which has been logged.
    pub fn send(&self, message: &[u8]) -> Result<(), CallError> {
        let Some(on_message) = &self.on_message else { return Ok(()) };
        self.enter(|| on_message(&self.plugin, message)).map_err(|what| {
            let PluginInfo { generation, name, .. } = &self.plugin;
            let text = format!("the host's on_message panicked on a message of {} bytes: {what}", message.len());
            let _ = self.enter(|| tracing::error!(generation, plugin = name, "{text}"));
            CallError::new(CallErrorKind::Panicked, text)
        })
    }

    /// Finds the service that the plugin asks for with its own contract of it, which need not be trusted. Each plugin
    /// may ask as often as it likes: a backend that keeps what it gets bounds how much that is.
    ///
    /// # Errors
    /// There is none, or it does not fit.
    pub fn service(&self, contract: &[u8]) -> Result<BoundService, ContractError> {
        self.services.bind(contract, &self.scope)
    }

    /// Runs code of the host's, and returns the text of a panic in it.
    fn enter<R>(&self, work: impl FnOnce() -> R) -> Result<R, String> {
        self.scope.enter(|| catch_unwind(AssertUnwindSafe(work)).map_err(panic_text))
    }
}

impl Drop for PluginHost {
    fn drop(&mut self) {
        match self.log_rate.take_dropped() {
            0 => {}
            lines => drop(self.enter(|| self.log_dropped(lines))),
        }
    }
}

impl fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHost").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}

/// The builder methods of a backend with a field `offers`.
#[cfg(any(feature = "native", feature = "wasm"))]
macro_rules! offer_methods {
    () => {
        /// Configures each plugin with these bytes, which its `create` gets; what they mean is up to the interface. A
        /// candidate's [own configuration]($crate::Candidate::config) takes their place.
        pub fn config(mut self, config: impl AsRef<[u8]>) -> Self {
            self.offers = self.offers.config(config);
            self
        }

        /// Takes what plugins send, on the threads that they send it from. Without it, messages are dropped.
        ///
        /// Text in a message is the plugin's: pass it through [`escape_untrusted`]($crate::escape_untrusted) before
        /// showing it.
        pub fn on_message(mut self, take: impl Fn(&$crate::host::PluginInfo, &[u8]) + Send + Sync + 'static) -> Self {
            self.offers = self.offers.on_message(take);
            self
        }

        /// Offers an interface that the host implements: plugins get it with
        /// [`Host::service`](hotslot_plugin::Host::service), and call it on the threads that they run on.
        pub fn service<S: $crate::host::Interface + ?Sized>(mut self, service: std::sync::Arc<S>) -> Self {
            self.offers = self.offers.service(service);
            self
        }
    };
}
#[cfg(any(feature = "native", feature = "wasm"))]
pub(crate) use offer_methods;

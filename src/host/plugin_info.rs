//! Which plugin calls the host.

use std::sync::Arc;

use hotslot_plugin::Level;
use semver::Version;

use crate::text::plugin_text;
use crate::{LoadContext, Manifest, escape_untrusted};

/// A plugin, as a host's message handler and functions see it: the slot, the generation, and the plugin's name and
/// version.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PluginInfo {
    /// The name of the slot.
    pub slot: Arc<str>,
    /// The generation's number.
    pub generation: u64,
    /// The plugin's name, empty if it has none.
    pub name: String,
    /// The plugin's version.
    pub version: Option<Version>,
}

/// The longest log line that is taken from a plugin, in bytes. What is beyond is cut.
pub(crate) const LOG_LIMIT: usize = 8 * 1024;
/// The longest target of one.
const TARGET_LIMIT: usize = 256;
/// The longest text of an event's fields, and of its spans.
const CONTEXT_LIMIT: usize = 4 * 1024;

/// What a plugin logs; bytes that need not be trusted.
#[derive(Clone, Copy, Default)]
pub(super) struct LogLine<'a> {
    pub(super) target: Option<&'a [u8]>,
    pub(super) message: &'a [u8],
    pub(super) fields: Option<&'a [u8]>,
    pub(super) spans: Option<&'a [u8]>,
}

impl<'a> LogLine<'a> {
    /// Makes a line of a message alone.
    pub(super) fn of(message: &'a str) -> LogLine<'a> {
        LogLine { message: message.as_bytes(), ..LogLine::default() }
    }

    /// Makes a line of an event's texts, in the order of the ABI.
    pub(super) fn of_event(texts: &[&'a [u8]]) -> LogLine<'a> {
        let text = |at: usize| texts.get(at).copied().filter(|text| !text.is_empty());
        LogLine { target: text(0), message: text(1).unwrap_or_default(), fields: text(2), spans: text(3) }
    }
}

impl PluginInfo {
    /// Describes the plugin that is being loaded.
    pub fn new(context: &LoadContext, manifest: &Manifest) -> PluginInfo {
        PluginInfo {
            slot: Arc::clone(&context.slot),
            generation: context.generation,
            name: manifest.name.clone(),
            version: manifest.version.clone(),
        }
    }

    /// Returns whether anybody listens to lines of this level.
    pub(super) fn is_logged(level: Level) -> bool {
        match level {
            Level::Error => tracing::enabled!(target: "hotslot::plugin", tracing::Level::ERROR),
            Level::Warn => tracing::enabled!(target: "hotslot::plugin", tracing::Level::WARN),
            Level::Info => tracing::enabled!(target: "hotslot::plugin", tracing::Level::INFO),
            Level::Debug => tracing::enabled!(target: "hotslot::plugin", tracing::Level::DEBUG),
            Level::Trace => tracing::enabled!(target: "hotslot::plugin", tracing::Level::TRACE),
        }
    }

    /// Writes a line of the plugin's to `tracing`, under the target `hotslot::plugin`, cut to 8 KiB and with its
    /// control characters escaped.
    pub(super) fn log(&self, level: Level, line: &LogLine<'_>) {
        let message = plugin_text(line.message, LOG_LIMIT);
        let target = line.target.map(|target| plugin_text(target, TARGET_LIMIT));
        let fields = line.fields.map(|fields| plugin_text(fields, CONTEXT_LIMIT));
        let spans = line.spans.map(|spans| plugin_text(spans, CONTEXT_LIMIT));
        let PluginInfo { slot, generation, name, version } = self;
        let version = version.as_ref().map(tracing::field::display);
        macro_rules! line {
            ($level:ident) => {
                tracing::event!(
                    target: "hotslot::plugin",
                    tracing::Level::$level,
                    slot = %escape_untrusted(slot),
                    generation,
                    plugin = name,
                    version,
                    plugin_target = target,
                    plugin_fields = fields,
                    plugin_spans = spans,
                    "{message}"
                )
            };
        }
        match level {
            Level::Error => line!(ERROR),
            Level::Warn => line!(WARN),
            Level::Info => line!(INFO),
            Level::Debug => line!(DEBUG),
            Level::Trace => line!(TRACE),
        }
    }
}

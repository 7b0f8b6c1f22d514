//! The rehearsal as the child sees it: this program, told by an environment variable to load a plugin and exit.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::call::{Call, FOLDER_VARIABLE, LOADED, PASSED, REACHED, REFUSED, VARIABLE};
use crate::child::Role;
use crate::failures::FailureCounter;
use crate::host::{Offers, plugin_text};
use crate::native::descriptor;
use crate::native::host::HostContext;
use crate::native::image::{Facts, Image};
use crate::native::library::{Library, LibraryError};
use crate::native::load_file::{self, Label, Place, Source};
use crate::native::plugin::NativePlugin;
use crate::{Artifact, BoxError, Digest, LoadContext, Payload, PluginScope, StopSignal};

pub(super) type OwnPart<'a> = Box<dyn FnOnce(Vec<u8>) -> Result<(), BoxError> + 'a>;

/// Returns what a child is for that rehearses; `own` is the program's part in it.
pub(super) fn role(own: Option<OwnPart<'_>>) -> Role<'_> {
    let play = move |told: &str| {
        let Some(call) = Call::read(told) else { return };
        say(&call, REACHED, "");
        let played = catch_unwind(AssertUnwindSafe(|| play(&call, own)));
        match played {
            Ok(Ok(())) => say(&call, PASSED, ""),
            Ok(Err(error)) => say(&call, REFUSED, &with_sources(&*error)),
            Err(_) => say(&call, REFUSED, "the program's part in the rehearsal panicked"),
        }
    };
    Role { variable: VARIABLE, play: Box::new(play) }
}

/// Writes a marked line; on a line of its own, whatever the plugin printed before.
fn say(call: &Call, word: &str, more: &str) {
    let line = format!("\n{} {word} {}\n", call.token, plugin_text(more.as_bytes(), 8 * 1024));
    // Without its output the child has no way to say so; the host will see that there was no verdict.
    let _ = io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush());
}

fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

fn play(call: &Call, own: Option<OwnPart<'_>>) -> Result<(), BoxError> {
    let mut config = Vec::new();
    io::stdin().read_to_end(&mut config)?;
    let mut artifact = config.split_off(call.config.min(config.len()));
    let place = match std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from) {
        Some(folder) if !call.from_memory => Place::Exactly(folder),
        _ => Place::Memory,
    };
    // Also for the slots of a part of the program's own.
    load_file::confine_to(place.clone());
    for size in &call.beside {
        let rest = artifact.split_off((*size).min(artifact.len()));
        let library = std::mem::replace(&mut artifact, rest);
        // It stays mapped, as it is in the host.
        map(&library, Image::read(&library)?.facts(), &place).map_err(|error| {
            format!("a library that is mapped in the host, and shares something with this one: {error}")
        })?;
    }
    match own {
        Some(own) => own(artifact),
        None if call.create => create(call, artifact, config.into(), &place),
        None => load(call, &artifact, Image::read(&artifact)?.facts(), &place).map(drop),
    }
}

fn load(call: &Call, artifact: &[u8], facts: &Facts, place: &Place) -> Result<Library, BoxError> {
    let (library, took) = map(artifact, facts, place)?;
    say(call, LOADED, &took.as_micros().to_string());
    Ok(library)
}

/// Loads a library, and says how long that took.
fn map(artifact: &[u8], facts: &Facts, place: &Place) -> Result<(Library, Duration), BoxError> {
    let label = Label { slot: "rehearsal", generation: 0, digest: Digest::of(artifact) };
    let source = Source::new(artifact, &label, place, u64::MAX).map_err(LibraryError::from)?;
    let (began, waited) = (Instant::now(), waited_for_a_processor());
    // SAFETY: running the constructors is what this process is for.
    let library = unsafe { Library::open(source, artifact.len(), facts)? };
    Ok((library, began.elapsed().saturating_sub(waited_for_a_processor() - waited)))
}

/// Returns how long this thread was ready to run and did not, since it began; zero where the kernel does not say.
fn waited_for_a_processor() -> Duration {
    // Source: Documentation/scheduler/sched-stats.rst of the Linux kernel; the second number, in nanoseconds.
    let stats = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stats.split_ascii_whitespace().nth(1).and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

fn create(call: &Call, bytes: Vec<u8>, config: Arc<[u8]>, place: &Place) -> Result<(), BoxError> {
    let image = Image::read(&bytes)?;
    let (identity, facts) = (descriptor::read(image.descriptor()?)?, image.facts().for_load());
    let artifact = Artifact::new(Payload::new(bytes).with_config(config), descriptor::manifest(&identity)?.into());
    let context = LoadContext {
        generation: 0,
        slot: "rehearsal".into(),
        stop: StopSignal::new(),
        failures: FailureCounter::new(|_| {}),
        scope: PluginScope::new(),
    };
    let host = HostContext::new(Offers::for_rehearsal().host_for(&artifact, &context), &context.stop);
    let library = Arc::new(load(call, artifact.bytes(), &facts, place)?);
    drop(NativePlugin::create(library, &identity, artifact.manifest().clone(), &host, context.failures)?);
    // Threads of the plugin may look at it until the process is gone.
    std::mem::forget(host);
    Ok(())
}

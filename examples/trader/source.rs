//! Where the plugin's bytes come from: a crate that is built with cargo, or an existing file.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hotslot::BoxError;
use serde_json::Value as Json;

use crate::commands::Command;
use crate::screen::Screen;

/// The source of a plugin, which can be read again after every change.
pub struct Source {
    pub origin: Origin,
    screen: Screen,
    building: Mutex<Option<Child>>,
}

pub enum Origin {
    /// A crate, by its manifest.
    Crate(PathBuf),
    /// A library file.
    File(PathBuf),
}

impl Source {
    /// Returns the source at `path`: a crate's directory, or a file.
    pub fn at(path: &Path, screen: Screen) -> Result<Source, BoxError> {
        let origin = if path.is_dir() {
            let manifest = path.join("Cargo.toml");
            let none = |error| format!("there is no crate in {}: {error}", path.display());
            // The form in which cargo will report it.
            Origin::Crate(manifest.canonicalize().map_err(none)?)
        } else {
            // Not canonical: a symbolic link may point elsewhere next time.
            Origin::File(std::path::absolute(path)?)
        };
        Ok(Source { origin, screen, building: Mutex::default() })
    }

    /// Returns the plugin's current bytes, after building it if necessary. Cargo's messages go to the screen.
    pub fn bytes(&self) -> Result<Vec<u8>, BoxError> {
        let built;
        let file = match &self.origin {
            Origin::File(file) => file,
            Origin::Crate(manifest) => {
                built = self.build(manifest)?;
                &built
            }
        };
        std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()).into())
    }

    /// Starts a thread that reads the bytes whenever something is sent to the returned channel. Requests that arrive
    /// during a build are answered by one more build.
    pub fn in_background(self: &Arc<Source>, commands: Sender<Command>) -> std::io::Result<Sender<()>> {
        let (request, requests) = channel();
        let source = Arc::clone(self);
        let work = move || {
            while requests.recv().is_ok() {
                while requests.try_recv().is_ok() {}
                if commands.send(Command::Load(source.bytes())).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("builder".to_owned()).spawn(work)?;
        Ok(request)
    }

    /// Cancels a build that is in progress.
    pub fn cancel(&self) {
        if let Some(cargo) = &mut *self.building() {
            // Fails if the build has ended meanwhile, which is fine.
            let _ = cargo.kill();
        }
    }

    fn build(&self, manifest: &Path) -> Result<PathBuf, BoxError> {
        let mut cargo = Process::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--color=never", "--message-format=json-render-diagnostics", "--manifest-path"]);
        cargo.arg(manifest).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Build scripts would take the variables that `cargo run` set for the host for a change.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                cargo.env_remove(name);
            }
        }
        let mut cargo = cargo.spawn().map_err(|error| format!("cannot run cargo: {error}"))?;
        let stdout = cargo.stdout.take().expect("it is piped");
        let stderr = cargo.stderr.take().expect("it is piped");
        *self.building() = Some(cargo);
        let plugin = std::thread::scope(|scope| {
            scope.spawn(|| lines(stderr).for_each(|line| self.screen.note(&line)));
            lines(stdout).filter_map(|line| plugin_in(&line, manifest)).last()
        });
        let cargo = self.building().take();
        if !cargo.expect("only this function takes it").wait()?.success() {
            return Err("cargo could not build the plugin: nothing changed".into());
        }
        let none =
            || format!("{} does not build a plugin: its [lib] needs crate-type = [\"cdylib\"]", manifest.display());
        Ok(plugin.ok_or_else(none)?)
    }

    fn building(&self) -> MutexGuard<'_, Option<Child>> {
        self.building.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lines(pipe: impl Read) -> impl Iterator<Item = String> {
    let lines = BufReader::new(pipe).split(b'\n').map_while(Result::ok);
    lines.map(|line| String::from_utf8_lossy(&line).into_owned())
}

/// Returns the dynamic library built from `manifest`, if this message from cargo names it.
fn plugin_in(message: &str, manifest: &Path) -> Option<PathBuf> {
    let message: Json = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || Path::new(message["manifest_path"].as_str()?) != manifest {
        return None;
    }
    let files = message["filenames"].as_array()?.iter().filter_map(Json::as_str);
    files.map(PathBuf::from).find(|file| file.extension().is_some_and(|own| own == std::env::consts::DLL_EXTENSION))
}

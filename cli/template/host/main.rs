//! The host: greets once a second, and reloads the library whenever it changes.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, SystemTime};
use std::{env, fs, io, thread};

use {{crate}}_interface::{Greeter, Tone};
use hotslot::HotSlot;
use hotslot::host::CallError;
use hotslot::native::{Native, Trust};

fn main() -> Result<(), Box<dyn Error>> {
    let library = library()?;
    let mut seen = changed(&library);
    // SAFETY: the library is the plugin of this workspace.
    let trust = unsafe { Trust::assume() };
    let slot: HotSlot<dyn Greeter> =
        HotSlot::builder(Native::interface::<dyn Greeter>(trust)).name("greeter").open(fs::read(&library)?)?;

    let (enter, entered) = channel();
    thread::spawn(move || io::stdin().lines().map_while(Result::ok).try_for_each(|line| enter.send(line)));
    loop {
        let now = changed(&library);
        if now != seen {
            seen = now;
            // A refused plugin changes nothing: the current one keeps serving.
            match fs::read(&library).map_err(Into::into).and_then(|bytes| Ok(slot.reload(bytes)?)) {
                Ok(report) if report.is_swap() => eprintln!("reloaded in {:?}", report.total),
                Ok(_) => {} // the same bytes as before
                Err::<_, Box<dyn Error>>(error) => eprintln!("not reloaded: {error}"),
            }
        }
        // A panic in the plugin becomes an error here.
        match CallError::catch(|| slot.load().greet("world", Tone::Warm)) {
            Ok(greeting) => println!("{greeting}"),
            Err(error) => eprintln!("no greeting: {error}"),
        }
        match entered.recv_timeout(Duration::from_secs(1)) {
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Returns the path of the library: the argument, or the one beside this program.
fn library() -> io::Result<PathBuf> {
    if let Some(path) = env::args_os().nth(1) {
        return Ok(path.into());
    }
    Ok(env::current_exe()?.with_file_name(format!("{DLL_PREFIX}{{crate}}_plugin{DLL_SUFFIX}")))
}

/// Returns when the file was last modified, and its length.
fn changed(library: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(library).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

//! The trader's process: how it is started, signalled and ended.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use portable_pty::Child;
use rustix::process::{Pid, Signal, kill_process};

use super::workspace::{example, without_our_cargo};

/// A command line in the making; the feed is the replay, unless another is chosen.
pub(crate) struct Start {
    arguments: Vec<OsString>,
    feed: Vec<OsString>,
    target: Option<OsString>,
}

impl Start {
    /// With the plugin at `path`: a crate or a file.
    pub(crate) fn with(plugin: &Path) -> Start {
        let arguments = vec!["--interval".into(), "200ms".into(), "--plugin".into(), plugin.into()];
        Start { arguments, feed: vec!["--feed".into(), "replay".into()], target: None }
    }

    /// With prices from Binance, which is at `url`, in the given way.
    pub(crate) fn feed(mut self, feed: &str, url: &str) -> Start {
        self.feed = ["--feed", feed, "--binance-url", url].map(OsString::from).into();
        self
    }

    /// Also reloads by itself.
    pub(crate) fn watching(mut self) -> Start {
        self.arguments.push("--watch".into());
        self
    }

    /// Builds plugins into this folder.
    pub(crate) fn building_into(mut self, target: &Path) -> Start {
        self.target = Some(target.into());
        self
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(example());
        without_our_cargo(&mut command)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_remove("RUST_LOG")
            .args(&self.arguments)
            .args(&self.feed);
        if let Some(target) = &self.target {
            command.env("CARGO_TARGET_DIR", target);
        }
        command
    }
}

/// A process that is killed when a test is over and it is not.
pub(crate) struct Process(Box<dyn Child + Send + Sync>);

impl Process {
    pub(crate) fn new(child: Box<dyn Child + Send + Sync>) -> Process {
        Process(child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Waits for its end; gives the exit code, or a signal as an error.
    pub(crate) fn exit_code(&mut self) -> Result<u32, String> {
        let status = self.0.wait().unwrap();
        status.signal().map_or(Ok(status.exit_code()), |signal| Err(signal.to_owned()))
    }

    fn pid(&self) -> Pid {
        let pid = self.0.process_id().expect("it was not waited for");
        Pid::from_raw(pid.cast_signed()).expect("not 0")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal(Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

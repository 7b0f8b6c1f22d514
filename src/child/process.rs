//! The child as the process that starts it sees it: how it is started and ended, and what it printed.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::{Limits, Scratch};
use crate::text::plugin_text;

/// What a child is started with.
pub(crate) struct Start<'a> {
    /// The variable by which it recognises what it is for.
    pub(crate) variable: &'static str,
    pub(crate) limits: &'a Limits,
    /// What else it is told.
    pub(crate) told: &'a str,
    pub(crate) environment: &'a [(&'a str, &'a OsStr)],
    pub(crate) input: &'a Scratch,
    pub(crate) output: &'a Scratch,
    pub(crate) errors: &'a Scratch,
}

impl Start<'_> {
    /// Starts this program again.
    pub(crate) fn start(&self) -> io::Result<Child> {
        // The link leads to the running program even if its file has been replaced meanwhile.
        let program = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe()? };
        let mut command = Command::new(program);
        // This process may be a child itself.
        crate::child_roles().iter().for_each(|role| _ = command.env_remove(role.variable));
        command
            .env(self.variable, format!("{} {}", self.limits.write(), self.told))
            .envs(self.environment.iter().copied())
            // It would push what a panic says out of the last words.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::from(self.input.file.try_clone()?))
            .stdout(Stdio::from(self.output.file.try_clone()?))
            .stderr(Stdio::from(self.errors.file.try_clone()?));
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn()
    }
}

/// How a child came to its end.
pub(crate) enum Ended {
    /// By itself, within the deadline. The status is unknown if something else in this process took it: a host may ignore
    /// SIGCHLD, or wait for all children.
    InTime(Option<ExitStatus>),
    /// It was killed at the deadline.
    Killed,
    /// It was killed because nobody wants its result any more.
    Abandoned,
}

/// Waits for the child; at the deadline, or when it is abandoned, it is killed.
pub(crate) fn wait(mut child: Child, deadline: Duration, is_abandoned: &dyn Fn() -> bool) -> io::Result<Ended> {
    const LOOK_EVERY: Duration = Duration::from_millis(2);
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Ok(Ended::InTime(Some(status))),
            Err(error) if is_gone(&error) => return Ok(Ended::InTime(None)),
            Err(error) => return Err(error),
        }
        let is_late = started.elapsed() >= deadline;
        if is_late || is_abandoned() {
            // It may be gone, and waited for elsewhere, before either of these comes to it.
            return match kill(&mut child).and_then(|()| child.wait()) {
                Err(error) if !is_gone(&error) => Err(error),
                _ if is_late => Ok(Ended::Killed),
                _ => Ok(Ended::Abandoned),
            };
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether the child has ended and was waited for elsewhere.
#[cfg(unix)]
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECHILD | libc::ESRCH))
}

#[cfg(not(unix))]
fn is_gone(_: &io::Error) -> bool {
    false
}

/// Kills the child and what it started.
#[cfg(unix)]
fn kill(child: &mut Child) -> io::Result<()> {
    // SAFETY: a plain system call. The child leads a group of its own, and has not been waited for, so the number is
    // still its own.
    unsafe { libc::kill(-child.id().cast_signed(), libc::SIGKILL) };
    child.kill()
}

#[cfg(not(unix))]
fn kill(child: &mut Child) -> io::Result<()> {
    child.kill()
}

/// Returns the end of what the child printed besides its marked lines, for an error.
pub(crate) fn last_words(printed: &str, token: &str) -> String {
    const LIMIT: usize = 1024;
    let own: Vec<_> = printed.lines().filter(|line| !line.contains(token) && !line.is_empty()).collect();
    let text = own.join(" | ");
    let mut start = text.len().saturating_sub(LIMIT);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let text = plugin_text(&text.as_bytes()[start..], LIMIT);
    if text.is_empty() { text } else { format!(" (it printed: {text})") }
}

impl Ended {
    /// Describes how it ended, if it did by itself.
    pub(crate) fn describe(&self) -> String {
        match self {
            Ended::InTime(Some(status)) => describe(*status),
            Ended::InTime(None) => {
                "ended (how, this process did not see: something else in it waits for children)".to_owned()
            }
            Ended::Killed => "was killed at its deadline".to_owned(),
            Ended::Abandoned => "was killed because nobody waited for it".to_owned(),
        }
    }
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let name = match signal {
            libc::SIGSEGV => "SIGSEGV, a bad memory access",
            libc::SIGBUS => "SIGBUS, a bad memory access",
            libc::SIGILL => "SIGILL, an illegal instruction",
            libc::SIGFPE => "SIGFPE, an arithmetic error",
            libc::SIGABRT => "SIGABRT, an abort",
            libc::SIGXCPU => "SIGXCPU, out of processor time",
            libc::SIGXFSZ => "SIGXFSZ, having written too much",
            libc::SIGALRM => "SIGALRM, out of time",
            libc::SIGKILL => "SIGKILL, killed from outside or out of memory",
            _ => return format!("died of signal {signal}"),
        };
        return format!("died of {name}");
    }
    match status.code() {
        Some(code) => format!("exited with code {code} before its end"),
        None => "ended without a code".to_owned(),
    }
}

/// Rounds up to seconds.
pub(crate) fn seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

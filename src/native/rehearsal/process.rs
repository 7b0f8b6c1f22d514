//! The child process of a rehearsal as the host sees it: what it is told, how it is started and ended, what it printed.

use std::io::{self, Read, Seek};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::host::plugin_text;
use crate::native::load_file::Scratch;

/// Where the child finds its [`Call`].
pub(super) const VARIABLE: &str = "HOTSLOT_REHEARSAL";
/// Where the child may make files.
pub(super) const FOLDER_VARIABLE: &str = "HOTSLOT_REHEARSAL_FOLDER";

pub(super) const REACHED: &str = "reached";
/// Followed by how long that took, in microseconds.
pub(super) const LOADED: &str = "loaded";
pub(super) const PASSED: &str = "passed";
pub(super) const REFUSED: &str = "refused";

/// How much more than the artifact a child may write into a file.
pub(super) const FILE_SLACK: u64 = 16 << 20;

/// What the child has to know before it reads its input; written into [`VARIABLE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) token: String,
    pub(super) create: bool,
    pub(super) from_memory: bool,
    pub(super) deadline: u64,
    pub(super) memory: Option<u64>,
    pub(super) cpu: Option<u64>,
    pub(super) file_size: u64,
    pub(super) config: usize,
    /// The sizes of the libraries that are loaded first.
    pub(super) beside: Vec<usize>,
}

impl Call {
    fn write(&self) -> String {
        let Call { token, create, from_memory, deadline, memory, cpu, file_size, config, beside } = self;
        let (memory, cpu) = (memory.unwrap_or(u64::MAX), cpu.unwrap_or(u64::MAX));
        let beside = beside.iter().map(|size| format!(" {size}")).collect::<String>();
        format!("{token} {create} {from_memory} {deadline} {memory} {cpu} {file_size} {config}{beside}")
    }

    pub(super) fn read(text: &str) -> Option<Call> {
        let limit = |text: &str| text.parse().ok().map(|limit| (limit != u64::MAX).then_some(limit));
        let mut fields = text.split(' ');
        let call = Call {
            token: fields.next()?.to_owned(),
            create: fields.next()?.parse().ok()?,
            from_memory: fields.next()?.parse().ok()?,
            deadline: fields.next()?.parse().ok()?,
            memory: limit(fields.next()?)?,
            cpu: limit(fields.next()?)?,
            file_size: fields.next()?.parse().ok()?,
            config: fields.next()?.parse().ok()?,
            beside: fields.map(|size| size.parse().ok()).collect::<Option<_>>()?,
        };
        Some(call)
    }
}

/// Starts this program again.
pub(super) fn start(call: &Call, folder: Option<&Path>, input: &Scratch, output: &Scratch) -> io::Result<Child> {
    // The link leads to the running program even if its file has been replaced meanwhile.
    let program = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe()? };
    let mut command = Command::new(program);
    command
        .env(VARIABLE, call.write())
        .envs(folder.map(|folder| (FOLDER_VARIABLE, folder)))
        // It would push what a panic says out of the last words.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::from(input.file.try_clone()?))
        .stdout(Stdio::from(output.file.try_clone()?))
        .stderr(Stdio::from(output.file.try_clone()?));
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn()
}

/// How a child came to its end.
pub(super) enum Ended {
    /// By itself, within the deadline. The status is unknown if something else in this process took it: a host may ignore
    /// SIGCHLD, or wait for all children.
    InTime(Option<ExitStatus>),
    /// It was killed at the deadline.
    Killed,
}

/// Waits for the child; at the deadline it is killed.
pub(super) fn wait(mut child: Child, deadline: Duration) -> io::Result<Ended> {
    const LOOK_EVERY: Duration = Duration::from_millis(2);
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Ok(Ended::InTime(Some(status))),
            Err(error) if is_gone(&error) => return Ok(Ended::InTime(None)),
            Err(error) => return Err(error),
        }
        if started.elapsed() >= deadline {
            // It may be gone, and waited for elsewhere, before either of these comes to it.
            return match kill(&mut child).and_then(|()| child.wait()) {
                Err(error) if !is_gone(&error) => Err(error),
                _ => Ok(Ended::Killed),
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

pub(super) fn read_back(output: &mut Scratch) -> io::Result<String> {
    let mut printed = Vec::new();
    output.file.rewind()?;
    output.file.read_to_end(&mut printed)?;
    Ok(String::from_utf8_lossy(&printed).into_owned())
}

/// Returns the end of what the plugin printed, for the error.
pub(super) fn last_words(printed: &str, token: &str) -> String {
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

/// Describes how a child ended.
pub(super) fn describe(status: ExitStatus) -> String {
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

pub(super) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::Call;

    #[test]
    fn a_call_survives_the_environment() {
        let call = Call {
            token: "0123456789abcdef".to_owned(),
            create: true,
            from_memory: false,
            deadline: 10,
            memory: None,
            cpu: Some(2),
            file_size: 1 << 24,
            config: 17,
            beside: vec![1, 4096],
        };
        assert_eq!(Call::read(&call.write()), Some(call.clone()));
        let alone = Call { beside: Vec::new(), ..call };
        assert_eq!(Call::read(&alone.write()), Some(alone));
        assert_eq!(Call::read("1"), None);
    }
}

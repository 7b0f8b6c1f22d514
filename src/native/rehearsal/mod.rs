//! A rehearsal: the plugin is loaded in a child process first, so that a crash or an endless loop in its constructors
//! ends the child and not the host.
//!
//! The child is this program again. It comes as far as [`rehearsal_point`], the first line of `main`, recognises its
//! part by an environment variable, plays it and exits. The artifact comes to it as its standard input, a file; what
//! it prints goes to another file, in which its verdict is marked with a token that only this rehearsal has.

use std::ffi::OsStr;
use std::io::{self, Read, Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::descriptor;
use super::host::{HostContext, Offers, plugin_text};
use super::image::Image;
use super::library::Library;
use super::load_file::{Place, PrivateFolder, Scratch, Source, random};
use super::plugin::NativePlugin;
use crate::failures::FailureCounter;
use crate::host::Config;
use crate::{BoxError, LoadContext, PluginScope, StopSignal};

/// The limits of a rehearsal. The child also writes no core file, and no file much larger than the artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// When the child and all it started in its process group are killed.
    pub deadline: Duration,
    /// How much address space the child may have, in bytes; enforced on Unix.
    pub memory: Option<u64>,
    /// How much processor time the child may use, rounded up to seconds; enforced on Unix.
    pub cpu: Option<Duration>,
}

/// Ten seconds, and no limits beyond the host's own.
impl Default for Rehearsal {
    fn default() -> Rehearsal {
        Rehearsal { deadline: Duration::from_secs(10), memory: None, cpu: None }
    }
}

/// How a rehearsal failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RehearsalError {
    /// The program did not say where a child takes its part.
    #[error("a rehearsal starts this program again: call hotslot::native::rehearsal_point() first thing in main")]
    NoRehearsalPoint,
    /// The program has more rights than the user who started it.
    #[error("a program with raised privileges does not take code from its environment: it cannot rehearse")]
    Privileged,
    /// The child could not be started.
    #[error("the child process for the rehearsal could not be started: {0}")]
    Start(io::Error),
    /// The plugin could not be loaded, or its instance not made.
    #[error("the rehearsal refused the plugin: {message}")]
    Refused {
        /// Why.
        message: String,
    },
    /// The child ended before it had finished.
    #[error("the rehearsal {ended}{output}: the plugin would have done that to the host")]
    Died {
        /// How: by which signal, or with which exit code.
        ended: String,
        /// What it printed last.
        output: String,
    },
    /// The child did not end in time.
    #[error("the rehearsal was not over after {deadline:?}{output}: the plugin hangs, or needs a longer deadline")]
    TooLate {
        /// The deadline.
        deadline: Duration,
        /// What it printed last.
        output: String,
    },
    /// The child was not this program, or went another way.
    #[error("the child {ended} without coming to rehearsal_point(){output}: call it before anything else in main")]
    NotReached {
        /// How it ended.
        ended: String,
        /// What it printed last.
        output: String,
    },
}

/// What the child does, unless the program brings a part of its own.
pub(super) enum Part {
    /// Loads the library, so that its constructors run.
    Load,
    /// Also makes an instance with this configuration, and destroys it.
    Create(Arc<[u8]>),
}

/// Where a child takes its part. Call it first thing in `main`, if you [rehearse](super::Native::rehearse).
///
/// In the host it returns at once. In a child it loads the plugin, makes an instance, destroys it, and ends the
/// process. The instance gets the configuration, and a host that ignores its messages.
pub fn rehearsal_point() {
    enter(None);
}

/// Like [`rehearsal_point`], with a part of your own: `part` gets the artifact's bytes and says whether they will do.
pub fn rehearsal_point_with(part: impl FnOnce(Vec<u8>) -> Result<(), BoxError>) {
    enter(Some(Box::new(part)));
}

type OwnPart<'a> = Box<dyn FnOnce(Vec<u8>) -> Result<(), BoxError> + 'a>;

/// Where the child finds its [`Call`].
const VARIABLE: &str = "HOTSLOT_REHEARSAL";
/// Where the child may make files.
const FOLDER_VARIABLE: &str = "HOTSLOT_REHEARSAL_FOLDER";
/// Set once this program has come by a rehearsal point as a host.
static ARMED: AtomicBool = AtomicBool::new(false);
/// Set if this process is a rehearsal.
static REHEARSING: AtomicBool = AtomicBool::new(false);

impl Rehearsal {
    /// Lets a child try `artifact`; returns once it has shown that this process can.
    ///
    /// In a child nothing is done: it *is* the rehearsal.
    pub(super) fn run(&self, artifact: &[u8], part: &Part, place: &Place) -> Result<(), RehearsalError> {
        if REHEARSING.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !ARMED.load(Ordering::Relaxed) {
            return Err(RehearsalError::NoRehearsalPoint);
        }
        if privileged() {
            return Err(RehearsalError::Privileged);
        }
        let config: &[u8] = match part {
            Part::Load => &[],
            Part::Create(config) => config,
        };
        let call = Call {
            token: format!("{:016x}", random()),
            create: matches!(part, Part::Create(_)),
            from_memory: place.memory,
            deadline: seconds(self.deadline),
            memory: self.memory,
            cpu: self.cpu.map(seconds),
            file_size: artifact.len() as u64 + FILE_SLACK,
            config: config.len(),
        };
        let input = Scratch::new(&[config, artifact]).map_err(RehearsalError::Start)?;
        let mut output = Scratch::new(&[]).map_err(RehearsalError::Start)?;
        // A child that crashes while it loads from a file leaves it to the host to clean up. Without a folder of its
        // own it uses the one for all, if it needs one.
        let own_folder = PrivateFolder::new(&place.folder).ok();
        let folder = own_folder.as_ref().map_or(&*place.folder, PrivateFolder::path);
        let ended = start(&call, folder, &input, &output)
            .and_then(|child| wait(child, self.deadline))
            .map_err(RehearsalError::Start)?;
        let printed = read_back(&mut output).map_err(RehearsalError::Start)?;
        self.judge(ended, &printed, &call.token)
    }

    fn judge(&self, ended: Option<ExitStatus>, printed: &str, token: &str) -> Result<(), RehearsalError> {
        let said = |word: &str| {
            let (_, after) = printed.split_once(&format!("{token} {word}"))?;
            Some(after.split_once('\n').map_or(after, |(line, _)| line))
        };
        if said(PASSED).is_some() {
            return Ok(());
        }
        if let Some(message) = said(REFUSED) {
            return Err(RehearsalError::Refused { message: message.trim_start().to_owned() });
        }
        let output = last_words(printed, token);
        let Some(status) = ended else {
            return Err(RehearsalError::TooLate { deadline: self.deadline, output });
        };
        let ended = describe(status);
        Err(match said(REACHED) {
            Some(_) => RehearsalError::Died { ended, output },
            None => RehearsalError::NotReached { ended, output },
        })
    }
}

const REACHED: &str = "reached";
const PASSED: &str = "passed";
const REFUSED: &str = "refused";

/// How much more than the artifact a child may write into a file.
const FILE_SLACK: u64 = 16 << 20;

/// What the child has to know before it reads its input; written into [`VARIABLE`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    token: String,
    create: bool,
    from_memory: bool,
    deadline: u64,
    memory: Option<u64>,
    cpu: Option<u64>,
    file_size: u64,
    config: usize,
}

impl Call {
    fn write(&self) -> String {
        let Call { token, create, from_memory, deadline, memory, cpu, file_size, config } = self;
        let (memory, cpu) = (memory.unwrap_or(u64::MAX), cpu.unwrap_or(u64::MAX));
        format!("{token} {create} {from_memory} {deadline} {memory} {cpu} {file_size} {config}")
    }

    fn read(text: &str) -> Option<Call> {
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
        };
        Some(call)
    }
}

/// Starts this program again.
fn start(call: &Call, folder: &Path, input: &Scratch, output: &Scratch) -> io::Result<Child> {
    // The link leads to the running program even if its file has been replaced meanwhile.
    let program = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe()? };
    let mut command = Command::new(program);
    command
        .env(VARIABLE, call.write())
        .env(FOLDER_VARIABLE, folder)
        // It would push what a panic says out of the last words.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::from(input.file.try_clone()?))
        .stdout(Stdio::from(output.file.try_clone()?))
        .stderr(Stdio::from(output.file.try_clone()?));
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn()
}

/// Waits for the child; at the deadline it is killed, and there is no status.
fn wait(mut child: Child, deadline: Duration) -> io::Result<Option<ExitStatus>> {
    const LOOK_EVERY: Duration = Duration::from_millis(2);
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() >= deadline {
            kill(&mut child)?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
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

fn read_back(output: &mut Scratch) -> io::Result<String> {
    let mut printed = Vec::new();
    output.file.rewind()?;
    output.file.read_to_end(&mut printed)?;
    Ok(String::from_utf8_lossy(&printed).into_owned())
}

/// The end of what the plugin printed, for the error.
fn last_words(printed: &str, token: &str) -> String {
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

/// How a child ended, in words.
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

fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Both sides of the rehearsal point.
fn enter(own: Option<OwnPart<'_>>) {
    let call = std::env::var_os(VARIABLE);
    let call = call.as_deref().and_then(OsStr::to_str).and_then(Call::read);
    let Some(call) = call.filter(|_| !privileged()) else {
        ARMED.store(true, Ordering::Relaxed);
        return;
    };
    REHEARSING.store(true, Ordering::Relaxed);
    limit(&call);
    say(&call, REACHED, "");
    let played = catch_unwind(AssertUnwindSafe(|| play(&call, own)));
    match played {
        Ok(Ok(())) => say(&call, PASSED, ""),
        Ok(Err(error)) => say(&call, REFUSED, &with_sources(&*error)),
        Err(_) => say(&call, REFUSED, "the program's part in the rehearsal panicked"),
    }
    leave()
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
    let artifact = config.split_off(call.config.min(config.len()));
    let folder = std::env::var_os(FOLDER_VARIABLE).map_or_else(std::env::temp_dir, PathBuf::from);
    let place = Place { memory: call.from_memory, folder };
    match own {
        Some(own) => own(artifact),
        None if call.create => create(&artifact, config.into(), &place),
        None => load(&artifact, &place).map(drop),
    }
}

fn load(artifact: &[u8], place: &Place) -> Result<Library, BoxError> {
    let source = Source::new(artifact, "rehearsal", place)?;
    // SAFETY: running the constructors is what this process is for.
    Ok(unsafe { Library::open(source, artifact.len())? })
}

fn create(artifact: &[u8], config: Arc<[u8]>, place: &Place) -> Result<(), BoxError> {
    let identity = descriptor::read(Image::read(artifact)?.descriptor()?)?;
    let manifest = descriptor::manifest(&identity)?;
    let context = LoadContext {
        generation: 0,
        slot: "rehearsal".into(),
        stop: StopSignal::new(),
        failures: FailureCounter::new(|_| {}),
        scope: PluginScope::new(),
    };
    let host = HostContext::new(&context, &manifest, &Offers { config: Config::Fixed(config), ..Offers::default() });
    let library = Arc::new(load(artifact, place)?);
    drop(NativePlugin::create(library, &identity, manifest, &host, context.failures)?);
    // Threads of the plugin may look at it until the process is gone.
    std::mem::forget(host);
    Ok(())
}

/// Whether this program has more rights than its user, who then must not choose what it runs.
#[cfg(target_os = "linux")]
fn privileged() -> bool {
    // SAFETY: reads a value that the kernel gave this process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

#[cfg(all(unix, not(target_os = "linux")))]
fn privileged() -> bool {
    // SAFETY: four system calls that cannot fail.
    unsafe { libc::getuid() != libc::geteuid() || libc::getgid() != libc::getegid() }
}

#[cfg(not(unix))]
fn privileged() -> bool {
    false
}

/// Takes the limits on.
#[cfg(unix)]
fn limit(call: &Call) {
    macro_rules! at_most {
        ($resource:ident, $soft:expr, $hard:expr) => {{
            // A platform's limit may have fewer bits, and a process may only lower its own.
            let most = |limit: u64| libc::rlim_t::try_from(limit).unwrap_or(libc::RLIM_INFINITY);
            let mut limit = libc::rlimit { rlim_cur: most($soft), rlim_max: most($hard) };
            // SAFETY: system calls on a value of this function.
            unsafe {
                let mut given = limit;
                if libc::getrlimit(libc::$resource, &raw mut given) == 0 {
                    limit.rlim_cur = limit.rlim_cur.min(given.rlim_max);
                    limit.rlim_max = limit.rlim_max.min(given.rlim_max);
                }
                libc::setrlimit(libc::$resource, &raw const limit);
            }
        }};
    }
    at_most!(RLIMIT_CORE, 0, 0);
    at_most!(RLIMIT_FSIZE, call.file_size, call.file_size);
    if let Some(memory) = call.memory {
        at_most!(RLIMIT_AS, memory, memory);
    }
    if let Some(cpu) = call.cpu {
        // The soft limit's signal says what was spent; at the hard limit it would be SIGKILL.
        at_most!(RLIMIT_CPU, cpu, cpu.saturating_add(1));
    }
    // Should the host be gone by the deadline, nobody else ends this process.
    let seconds = u32::try_from(call.deadline.saturating_add(1)).unwrap_or(u32::MAX);
    // SAFETY: sets a timer whose signal ends the process.
    unsafe { libc::alarm(seconds) };
}

#[cfg(not(unix))]
fn limit(_: &Call) {}

/// Ends the child. Its exit handlers are not part of the rehearsal: in the host they run when the host ends.
fn leave() -> ! {
    #[cfg(unix)]
    // SAFETY: ends the process at once, and the output has been flushed.
    unsafe {
        libc::_exit(0)
    }
    #[cfg(not(unix))]
    std::process::exit(0)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        };
        assert_eq!(Call::read(&call.write()), Some(call));
        assert_eq!(Call::read("1"), None);
    }

    #[test]
    fn the_verdict_is_found_among_what_the_plugin_printed() {
        let judge = |printed: &str| Rehearsal::default().judge(Some(ExitStatus::default()), printed, "t0k");
        assert!(judge("\nt0k reached \nhello\nt0k passed \n").is_ok());
        let refused = judge("\nt0k reached \nt0k refused no such table\n").unwrap_err();
        assert!(matches!(refused, RehearsalError::Refused { message } if message == "no such table"));
        let died = judge("\nt0k reached \nhello \x1b[2J\npassed").unwrap_err().to_string();
        assert!(died.contains("exited with code 0") && died.contains("hello \\u{1b}[2J | passed"), "{died}");
        assert!(matches!(judge("usage: …"), Err(RehearsalError::NotReached { .. })));
    }

    #[test]
    fn a_program_without_a_rehearsal_point_is_told() {
        let result = Rehearsal::default().run(b"", &Part::Load, &Place::default());
        assert!(matches!(result, Err(RehearsalError::NoRehearsalPoint)), "{result:?}");
    }
}

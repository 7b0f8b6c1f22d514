//! What a child may take. It lowers its own limits before it does anything else.

/// The limits of a child. It also writes no core file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Seconds, after which a child ends that nobody waits for.
    pub(crate) deadline: u64,
    /// Bytes of address space.
    pub(crate) memory: Memory,
    /// Seconds of processor time.
    pub(crate) cpu: Option<u64>,
    /// Bytes of the largest file that it may write.
    pub(crate) file_size: u64,
}

/// A limit of address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    Unlimited,
    /// All that the process has.
    Total(u64),
    /// What it takes beyond what the program has before it does anything. Only Linux says how much that is.
    Beyond(u64),
}

/// What a child prints as its last words when it runs into a limit: this process may not see by which signal it ended.
#[cfg(any(unix, feature = "wasm"))]
mod last_words {
    pub(crate) const OUT_OF_TIME: &str = "[out of time]";
    pub(crate) const OUT_OF_PROCESSOR_TIME: &str = "[out of processor time]";
    pub(crate) const OUT_OF_FILE_SIZE: &str = "[wrote too much]";
}
#[cfg(any(unix, feature = "wasm"))]
pub(crate) use last_words::{OUT_OF_FILE_SIZE, OUT_OF_PROCESSOR_TIME, OUT_OF_TIME};

impl Limits {
    /// Returns the limits as text, for the environment.
    pub(super) fn write(&self) -> String {
        let Limits { deadline, memory, cpu, file_size } = self;
        let memory = match memory {
            Memory::Unlimited => "-".to_owned(),
            Memory::Total(bytes) => bytes.to_string(),
            Memory::Beyond(bytes) => format!("+{bytes}"),
        };
        let cpu = cpu.map_or("-".to_owned(), |cpu| cpu.to_string());
        format!("{deadline} {memory} {cpu} {file_size}")
    }

    /// Reads the text, and returns what comes after it.
    pub(super) fn read(text: &str) -> Option<(Limits, &str)> {
        let mut fields = text.splitn(5, ' ');
        let mut field = || fields.next();
        let deadline = field()?.parse().ok()?;
        let memory = match field()? {
            "-" => Memory::Unlimited,
            bytes => match bytes.strip_prefix('+') {
                Some(bytes) => Memory::Beyond(bytes.parse().ok()?),
                None => Memory::Total(bytes.parse().ok()?),
            },
        };
        let cpu = match field()? {
            "-" => None,
            cpu => Some(cpu.parse().ok()?),
        };
        let file_size = field()?.parse().ok()?;
        Some((Limits { deadline, memory, cpu, file_size }, field().unwrap_or_default()))
    }

    /// Takes the limits on, in the child.
    #[cfg(unix)]
    pub(super) fn apply(&self) {
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
        for signal in [libc::SIGXCPU, libc::SIGXFSZ, libc::SIGALRM] {
            // Whatever the host does with them: what it ignores, a child ignores, too.
            // SAFETY: `last_words` does only what a signal handler may, and is there for as long as the process is.
            unsafe { libc::signal(signal, last_words as *const () as libc::sighandler_t) };
        }
        // What the host blocks, a child has blocked, too.
        // SAFETY: system calls on a value of this block.
        unsafe {
            let mut ours = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut ours);
            for signal in [libc::SIGXCPU, libc::SIGXFSZ, libc::SIGALRM] {
                libc::sigaddset(&raw mut ours, signal);
            }
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const ours, std::ptr::null_mut());
        }
        at_most!(RLIMIT_CORE, 0, 0);
        at_most!(RLIMIT_FSIZE, self.file_size, self.file_size);
        let memory = match self.memory {
            Memory::Unlimited => None,
            Memory::Total(bytes) => Some(bytes),
            Memory::Beyond(bytes) => Some(address_space().unwrap_or_default().saturating_add(bytes)),
        };
        if let Some(memory) = memory {
            at_most!(RLIMIT_AS, memory, memory);
        }
        if let Some(cpu) = self.cpu {
            // The soft limit's signal says what was spent; at the hard limit it would be SIGKILL.
            at_most!(RLIMIT_CPU, cpu, cpu.saturating_add(1));
        }
        // Should the host be gone by the deadline, nobody else ends this process.
        let seconds = u32::try_from(self.deadline.saturating_add(1)).unwrap_or(u32::MAX);
        // SAFETY: sets a timer whose signal ends the process.
        unsafe { libc::alarm(seconds) };
    }

    #[cfg(not(unix))]
    pub(super) fn apply(&self) {}
}

/// Says which limit it was, and ends the process as the signal would have.
#[cfg(unix)]
extern "C" fn last_words(signal: libc::c_int) {
    let words = match signal {
        libc::SIGXCPU => concat_line(OUT_OF_PROCESSOR_TIME),
        libc::SIGXFSZ => concat_line(OUT_OF_FILE_SIZE),
        _ => concat_line(OUT_OF_TIME),
    };
    // SAFETY: three functions that a signal handler may call, on bytes of this function.
    unsafe {
        libc::write(2, words.as_ptr().cast(), words.len());
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// A line of its own, without an allocation.
#[cfg(unix)]
fn concat_line(words: &str) -> [u8; 32] {
    let mut line = [b' '; 32];
    line[0] = b'\n';
    line[31] = b'\n';
    let len = words.len().min(30);
    line[1..=len].copy_from_slice(&words.as_bytes()[..len]);
    line
}

/// Returns the bytes of address space that this process has.
#[cfg(unix)]
fn address_space() -> Option<u64> {
    // Source: proc_pid_statm(5); the first number, in pages.
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').next()?.parse().ok()?;
    // SAFETY: reads a constant of the system.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages.saturating_mul(u64::try_from(page).ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Limits, Memory};

    #[test]
    fn limits_survive_the_environment() {
        for (memory, cpu) in
            [(Memory::Unlimited, None), (Memory::Total(1 << 29), Some(2)), (Memory::Beyond(1 << 30), Some(0))]
        {
            let limits = Limits { deadline: 10, memory, cpu, file_size: 1 << 24 };
            assert_eq!(Limits::read(&limits.write()), Some((limits.clone(), "")));
            assert_eq!(Limits::read(&format!("{} and more", limits.write())), Some((limits, "and more")));
        }
        assert_eq!(Limits::read("1"), None);
    }
}

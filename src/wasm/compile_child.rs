//! Compilation in a child process: what it takes is bounded as a whole, and it can be killed.
//!
//! The child is this program again, with the same compiler and the same settings. It gets a key for this one compilation
//! with the module, and returns the code with a MAC, so that what is cut short, or printed by something else in the program, is
//! not taken for code. Whether the code fits the engine, wasmtime checks when it is loaded.
//!
//! That bounds time and memory. It is no sandbox: the child has the rights of the host, and the host runs the code that it
//! returns. So a fault of the compiler that a module can exploit is as bad as without it.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rayon::ThreadPoolBuilder;
use wasmtime::{Module, Strategy};

use super::config;
use super::error::CompileError;
use super::seal::{CodeKey, random_key};
use crate::child::{
    self, Ended, Limits, Memory, OUT_OF_FILE_SIZE, OUT_OF_PROCESSOR_TIME, OUT_OF_TIME, Role, Scratch, Start,
    last_words, seconds,
};
use crate::text::{panic_text, plugin_text};
use crate::{BoxError, Digest};

/// What one compilation may take, for engines that [compile in a child](super::EngineBuilder::compile_in_child). The
/// number at the end of each line is the default.
///
/// ```
/// use hotslot::wasm::CompileLimits;
///
/// let limits = CompileLimits { memory: 256 << 20, ..CompileLimits::default() };
/// assert_eq!(limits.output, 64 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// When the child is killed. 60 s.
    pub deadline: Duration,
    /// Processor time of all threads, rounded up to seconds. 60 s.
    pub cpu: Duration,
    /// Bytes of address space beyond what the program has when it starts. 1 GiB.
    pub memory: u64,
    /// Bytes of compiled code. 64 MiB.
    pub output: u64,
}

impl Default for CompileLimits {
    fn default() -> CompileLimits {
        CompileLimits {
            deadline: Duration::from_secs(60),
            cpu: Duration::from_secs(60),
            memory: 1 << 30,
            output: 64 << 20,
        }
    }
}

/// The variable by which a child recognises that it compiles.
const VARIABLE: &str = "HOTSLOT_COMPILATION";
const REACHED: &str = "reached";
const REFUSED: &str = "refused";
const KEY: usize = blake3::KEY_LEN;
const MAC: usize = blake3::OUT_LEN;
/// The smallest module.
const EMPTY: &[u8] = b"\0asm\x01\0\0\0";

/// What the compiler of an engine is set to, as far as it matters for the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CompilerSettings {
    pub(super) stack: usize,
    pub(super) pooled: bool,
    pub(super) baseline: bool,
    pub(super) threads: usize,
}

impl CompilerSettings {
    fn write(&self) -> String {
        let CompilerSettings { stack, pooled, baseline, threads } = self;
        format!("{stack} {pooled} {baseline} {threads}")
    }

    fn read(text: &str) -> Option<CompilerSettings> {
        let mut fields = text.split(' ');
        Some(CompilerSettings {
            stack: fields.next()?.parse().ok()?,
            pooled: fields.next()?.parse().ok()?,
            baseline: fields.next()?.parse().ok()?,
            threads: fields.next()?.parse().ok()?,
        })
    }
}

/// Compiles for one engine, in children.
pub(super) struct ChildCompiler {
    limits: CompileLimits,
    settings: CompilerSettings,
    key: CodeKey,
}

impl ChildCompiler {
    /// Makes sure that a child can compile for this engine, by having one compile an empty module.
    pub(super) fn new(
        engine: &wasmtime::Engine,
        limits: CompileLimits,
        settings: CompilerSettings,
    ) -> Result<ChildCompiler, CompileError> {
        if !cfg!(target_os = "linux") {
            return Err(CompileError::Unsupported);
        }
        if !child::is_armed() {
            return Err(CompileError::NoRehearsalPoint);
        }
        if child::privileged() {
            return Err(CompileError::Privileged);
        }
        let key = CodeKey::random(engine).map_err(CompileError::Start)?;
        let compiler = ChildCompiler { limits, settings, key };
        compiler.module(engine, EMPTY, Digest::of(EMPTY), &|| false)?;
        Ok(compiler)
    }

    /// Compiles a module. Returns it, and its code for a cache.
    pub(super) fn module(
        &self,
        engine: &wasmtime::Engine,
        module: &[u8],
        digest: Digest,
        is_abandoned: &dyn Fn() -> bool,
    ) -> Result<(Module, Vec<u8>), CompileError> {
        if is_abandoned() {
            return Err(CompileError::Abandoned);
        }
        let code = self.compile(module, is_abandoned)?;
        // Only what this process has sealed is loaded; whatever the child still writes, it does not write in here.
        let mut sealed = self.key.seal(digest, &code).to_vec();
        sealed.extend(&code);
        let module = self.key.open(engine, digest, &sealed).map_err(CompileError::Unusable)?;
        Ok((module, code))
    }

    fn compile(&self, module: &[u8], is_abandoned: &dyn Fn() -> bool) -> Result<Vec<u8>, CompileError> {
        let CompileLimits { deadline, cpu, memory, output } = self.limits;
        let limits = Limits {
            deadline: seconds(deadline),
            memory: Memory::Beyond(memory),
            cpu: Some(seconds(cpu)),
            file_size: output.saturating_add(MAC as u64),
        };
        let key = random_key().map_err(CompileError::Start)?;
        let token = format!("{:016x}", crate::private_dir::random());
        let scratch = |parts: &[&[u8]]| Scratch::new(parts).map_err(CompileError::Start);
        let (input, mut code, mut errors) = (scratch(&[&key, module])?, scratch(&[])?, scratch(&[])?);
        let start = Start {
            variable: VARIABLE,
            limits: &limits,
            told: &format!("{token} {}", self.settings.write()),
            environment: &[],
            input: &input,
            output: &code,
            errors: &errors,
        };
        let ended = start.start().and_then(|child| child::wait(child, deadline, is_abandoned));
        let ended = ended.map_err(CompileError::Start)?;
        let code = code.read_back(limits.file_size).map_err(CompileError::Start)?;
        let printed = errors.read_back(limits.file_size).map_err(CompileError::Start)?;
        self.judge(&ended, code, &String::from_utf8_lossy(&printed), &key, &token)
    }

    fn judge(
        &self,
        ended: &Ended,
        mut code: Vec<u8>,
        printed: &str,
        key: &[u8; KEY],
        token: &str,
    ) -> Result<Vec<u8>, CompileError> {
        match ended {
            Ended::Killed => return Err(CompileError::TooLate { deadline: self.limits.deadline }),
            Ended::Abandoned => return Err(CompileError::Abandoned),
            Ended::InTime(_) => {}
        }
        if let Some((mac, content)) = code.split_first_chunk::<MAC>()
            && blake3::keyed_hash(key, content) == *mac
        {
            code.drain(..MAC);
            return Ok(code);
        }
        let output = last_words(printed, token);
        let refused = printed.split_once(&format!("{token} {REFUSED} ")).map(|(_, after)| after);
        let refused = refused.map(|after| after.split_once('\n').map_or(after, |(line, _)| line).to_owned());
        let CompileLimits { deadline, cpu, memory, output: longest } = self.limits;
        Err(if printed.contains(OUT_OF_PROCESSOR_TIME) {
            CompileError::OutOfProcessorTime { limit: cpu }
        } else if printed.contains(OUT_OF_FILE_SIZE) {
            CompileError::OutputTooLarge { limit: longest }
        } else if printed.contains(OUT_OF_TIME) {
            CompileError::TooLate { deadline }
        } else if OUT_OF_MEMORY.iter().any(|words| printed.contains(words)) {
            CompileError::OutOfMemory { limit: memory }
        } else if let Some(message) = refused {
            CompileError::Refused { message }
        } else if printed.contains(&format!("{token} {REACHED}")) {
            CompileError::Died { ended: ended.describe(), output }
        } else {
            CompileError::NotReached { ended: ended.describe(), output }
        })
    }
}

/// What the standard library, the system and wasmtime say when there is no more memory.
const OUT_OF_MEMORY: [&str; 4] =
    ["memory allocation of ", "Cannot allocate memory", "out of memory", "failed to allocate memory"];

/// Returns what a child is for that compiles.
pub(crate) fn compilation_role() -> Role<'static> {
    Role { variable: VARIABLE, play: Box::new(play) }
}

/// Compiles, in the child.
fn play(told: &str) {
    let Some((token, settings)) = told.split_once(' ') else { return };
    let Some(settings) = CompilerSettings::read(settings) else { return };
    let say = |words: &str| {
        // Without its output the child has no way to say so; the host will see that there is no code.
        let _ = io::stderr().write_all(format!("\n{token} {words}\n").as_bytes());
    };
    say(REACHED);
    let refused = match catch_unwind(AssertUnwindSafe(|| compile(&settings))) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => format!("the compiler panicked: {}", panic_text(panic)),
    };
    say(&format!("{REFUSED} {}", plugin_text(refused.as_bytes(), 8 * 1024)));
}

fn compile(settings: &CompilerSettings) -> Result<(), BoxError> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    let (key, module) = input.split_first_chunk::<KEY>().ok_or("the module is missing")?;
    let strategy = if settings.baseline { Strategy::Winch } else { Strategy::Cranelift };
    let engine = config::compiling(settings.stack, settings.pooled, strategy)?;
    let threads = ThreadPoolBuilder::new().num_threads(settings.threads).build()?;
    let code = threads.install(|| engine.precompile_module(module))?;
    let mut output = io::stdout().lock();
    // Whatever was printed before `main` is not code; nor is what waits in the buffer.
    output.flush()?;
    empty(&output)?;
    output.write_all(blake3::keyed_hash(key, &code).as_bytes())?;
    output.write_all(&code)?;
    Ok(output.flush()?)
}

#[cfg(unix)]
fn empty(output: &io::StdoutLock<'_>) -> io::Result<()> {
    use std::io::Seek;
    use std::os::fd::AsFd;

    let mut file = std::fs::File::from(output.as_fd().try_clone_to_owned()?);
    file.set_len(0)?;
    file.rewind()
}

#[cfg(not(unix))]
fn empty(_: &io::StdoutLock<'_>) -> io::Result<()> {
    Ok(())
}

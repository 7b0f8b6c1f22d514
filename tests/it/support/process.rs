//! Processes that a test can afford to lose, or that it wants for itself.

use std::any::type_name_of_val;
use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

/// Set in a process that runs one test alone.
const ALONE: &str = "HOTSLOT_TEST_ALONE";

/// Runs the body of a test in a process of its own, where no other test maps libraries or has threads.
///
/// The body has to be a closure that stands in the test itself: the process is told the test's name.
#[track_caller]
pub(crate) fn alone<F: FnOnce()>(body: F) {
    if let Some(end) = in_a_process(body) {
        assert!(end.status.success(), "{}: {}", end.status, end.output);
    }
}

/// Runs the body of a test in a process of its own and gives the signal that ended it; `None` in that process.
#[track_caller]
pub(crate) fn killed_by<F: FnOnce()>(body: F) -> Option<i32> {
    let end = in_a_process(body)?;
    let signal = end.status.signal();
    Some(signal.unwrap_or_else(|| panic!("no signal ended it, but {}: {}", end.status, end.output)))
}

/// Runs the body of a test in a process of its own; `None` in that process.
#[track_caller]
pub(crate) fn in_a_process<F: FnOnce()>(body: F) -> Option<End> {
    if std::env::var_os(ALONE).is_some() {
        body();
        return None;
    }
    let name = type_name_of_val(&body).trim_end_matches("::{{closure}}");
    let (_, test) = name.split_once("::").expect("a path begins with the name of the crate");
    let own = std::env::current_exe().expect("a test knows its program");
    let mut command = Command::new(own);
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]).env(ALONE, "1");
    let end = run(&mut command);
    let ran = end.output.contains("running 1 test");
    assert!(ran, "{test} is not the name of the test that the closure stands in: {}", end.output);
    Some(end)
}

/// How a process ended, and what it wrote.
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

/// Runs src/bin/sacrificial.rs.
#[cfg(feature = "native")]
pub(crate) fn sacrificial<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> End {
    run(Command::new(env!("CARGO_BIN_EXE_sacrificial")).args(arguments))
}

/// Runs src/bin/compiling.rs, with one more variable.
#[cfg(feature = "backends")]
pub(crate) fn compiling<A: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = A>,
    variable: Option<(&str, &str)>,
) -> End {
    run(Command::new(env!("CARGO_BIN_EXE_compiling")).args(arguments).envs(variable))
}

/// Runs a program of this package with one argument.
pub(crate) fn program(path: &str, argument: &Path) -> End {
    // As developers have it; what it adds must not hide what a program says.
    run(Command::new(path).arg(argument).env("RUST_BACKTRACE", "1"))
}

fn run(command: &mut Command) -> End {
    let output = command.output().expect("the program starts");
    let both = [output.stdout, output.stderr].concat();
    End { status: output.status, output: String::from_utf8_lossy(&both).into_owned() }
}

/// A child that was forked from this process.
pub(crate) struct Forked(libc::pid_t);

/// Forks this process; `None` in the child, which calls only what it is there to try, and ends by [`end_with`].
pub(crate) fn fork() -> Option<Forked> {
    // SAFETY: see above.
    let child = unsafe { libc::fork() };
    (child != 0).then_some(Forked(child))
}

/// Ends a forked child; tells its parent whether all was as it should be, without running what the parent will run.
pub(crate) fn end_with(answers: &[bool]) -> ! {
    let wrong = answers.iter().position(|good| !good).map_or(0, |at| at as i32 + 1);
    // SAFETY: it only ends the process.
    unsafe { libc::_exit(wrong) }
}

impl Forked {
    /// Waits for the child, all of whose answers have to be good.
    #[track_caller]
    pub(crate) fn answers_well(self) {
        let mut status = 0;
        // SAFETY: waits for the child that was forked.
        unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert!(libc::WIFEXITED(status), "it was killed: {status}");
        assert_eq!(libc::WEXITSTATUS(status), 0, "the number of the answer that was wrong");
    }
}

//! What the trader prints, read as it comes, and searched line by line.

use std::io::Read;
use std::num::NonZeroU16;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Far more than anything here takes; it only keeps a broken trader from hanging the tests.
const PATIENCE: Duration = Duration::from_secs(120);

/// So tall that no line of a test scrolls away.
pub(crate) const ROWS: NonZeroU16 = NonZeroU16::new(1000).unwrap();
pub(crate) const COLUMNS: NonZeroU16 = NonZeroU16::new(120).unwrap();

/// One stream of output.
pub(crate) struct Output(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    grown: Condvar,
}

struct State {
    raw: Vec<u8>,
    /// What it looks like, if it goes to a terminal.
    screen: Option<vt100::Parser>,
    /// How many lines a search has passed.
    passed: usize,
    ended: bool,
}

impl Output {
    /// Reads a pipe to its end.
    pub(crate) fn of_pipe(pipe: impl Read + Send + 'static) -> Output {
        Output::read(pipe, None)
    }

    /// Reads a terminal of [`ROWS`] and [`COLUMNS`] to its end.
    pub(crate) fn of_terminal(terminal: impl Read + Send + 'static) -> Output {
        Output::read(terminal, Some(vt100::Parser::new(ROWS, COLUMNS, 0)))
    }

    fn read(mut from: impl Read + Send + 'static, screen: Option<vt100::Parser>) -> Output {
        let state = Mutex::new(State { raw: Vec::new(), screen, passed: 0, ended: false });
        let shared = Arc::new(Shared { state, grown: Condvar::new() });
        let output = Output(Arc::clone(&shared));
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            // A terminal that nobody writes to any more ends with an error.
            while let Ok(length @ 1..) = from.read(&mut chunk) {
                shared.state.lock().unwrap().take(&chunk[..length]);
                shared.grown.notify_all();
            }
            shared.state.lock().unwrap().ended = true;
            shared.grown.notify_all();
        });
        output
    }

    /// The next complete line of which `look` makes something. The lines before it are not looked at again.
    #[track_caller]
    pub(crate) fn find<R>(&self, what: &str, mut look: impl FnMut(&str) -> Option<R>) -> R {
        self.wait_until(what, |state| {
            let lines = state.lines();
            let mut next = lines.iter().enumerate().skip(state.passed);
            let (at, found) = next.find_map(|(at, line)| Some((at, look(line)?)))?;
            state.passed = at + 1;
            Some(found)
        })
    }

    /// A complete line of which `look` makes something, wherever it is; the search for others goes on where it was.
    #[track_caller]
    pub(crate) fn find_anywhere<R>(&self, what: &str, look: impl Fn(&str) -> Option<R>) -> R {
        self.wait_until(what, |state| state.lines().iter().find_map(|line| look(line)))
    }

    /// Waits until a person sees this text, be it in a line or in the bar.
    #[track_caller]
    pub(crate) fn wait_for_sight(&self, text: &str) {
        self.wait_until(text, |state| state.screen().contents().contains(text).then_some(()));
    }

    /// Waits until nobody can write any more.
    #[track_caller]
    pub(crate) fn wait_for_end(&self) {
        self.wait_until("the end of the output", |state| state.ended.then_some(()));
    }

    #[track_caller]
    fn wait_until<R>(&self, what: &str, mut look: impl FnMut(&mut State) -> Option<R>) -> R {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.0.state.lock().unwrap();
        loop {
            if let Some(found) = look(&mut state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                let why = if state.ended { "the output ended without it" } else { "it did not come in time" };
                let lines = state.lines().join("\n");
                // So that the lock is not poisoned.
                drop(state);
                panic!("{what}: {why}, but these lines did come:\n{lines}");
            }
            state = self.0.grown.wait_timeout(state, left).unwrap().0;
        }
    }

    /// All complete lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.state.lock().unwrap().lines()
    }

    /// The bytes as they came.
    pub(crate) fn raw(&self) -> Vec<u8> {
        self.0.state.lock().unwrap().raw.clone()
    }

    /// What a person sees now, unfinished lines included, and whether the cursor is shown.
    pub(crate) fn screen(&self) -> (String, bool) {
        let state = self.0.state.lock().unwrap();
        (state.screen().contents(), !state.screen().hide_cursor())
    }
}

impl State {
    fn take(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        if let Some(screen) = &mut self.screen {
            screen.process(bytes);
        }
    }

    fn screen(&self) -> &vt100::Screen {
        self.screen.as_ref().expect("only a terminal has a screen").screen()
    }

    /// A line is complete when the next one has begun; on the screen those are the lines above the cursor.
    fn lines(&self) -> Vec<String> {
        let text = match &self.screen {
            Some(_) => self.screen().contents_between(0, 0, self.screen().cursor_position().0, 0),
            None => String::from_utf8_lossy(&self.raw).into_owned(),
        };
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.split('\n').map(str::to_owned).collect()
    }
}

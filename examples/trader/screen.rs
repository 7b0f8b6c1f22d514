//! What a person sees: lines that scroll above a status bar, or plain lines if there is no terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossterm::cursor::{Hide, MoveToColumn, MoveToPreviousLine, Show};
use crossterm::style::{Color, Colors, ResetColor, SetColors};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap, EndSynchronizedUpdate,
    disable_raw_mode, enable_raw_mode,
};
use crossterm::{execute, queue};
use hotslot::escape_untrusted;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::prelude::*;

/// Whether the terminal is ours. It belongs to the process, and the panic hook has to know it without a lock.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The one place that writes. Cloning gives another handle to it.
///
/// Everything is [made escape_untrusted](escape_untrusted) here, at the last moment, whoever it comes from.
#[derive(Clone)]
pub struct Screen {
    is_replay: bool,
    /// The status bar; the lock also keeps lines in one piece.
    bar: Arc<Mutex<Bar>>,
}

/// The two lines of the status bar.
pub type Bar = [String; 2];

impl Screen {
    /// Plain lines. `is_replay` marks every price as synthetic.
    pub fn new(is_replay: bool) -> Screen {
        Screen { is_replay, bar: Arc::default() }
    }

    /// Takes the terminal over, if there is one, until the result is dropped; or until a panic, which is then printed
    /// on a terminal in order.
    pub fn take_terminal(&self) -> io::Result<Option<Taken>> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(None);
        }
        let print_panic = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            print_panic(panic);
        }));
        TAKEN.store(true, Ordering::SeqCst);
        let taken = Taken;
        enable_raw_mode()?;
        execute!(io::stdout(), Hide)?;
        Ok(Some(taken))
    }

    /// Shows a price, and on a terminal the details that come with it. Elsewhere `RUST_LOG=trader=debug` shows those.
    pub fn price(&self, price: &str, details: &str) -> io::Result<()> {
        let (price, details) = (escape_untrusted(price), escape_untrusted(details));
        tracing::debug!("{price}, {details}");
        let mark = if self.is_replay { " (replay)" } else { "" };
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        if TAKEN.load(Ordering::SeqCst) {
            draw(Some(&format!("{price}{mark}   {details}")), &bar)
        } else {
            writeln!(io::stdout(), "{price}{mark}")
        }
    }

    /// Shows a line that is not a price.
    pub fn note(&self, line: &str) {
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let line = escape_untrusted(line);
        // Nobody can be told that nobody can be told.
        let _ = if TAKEN.load(Ordering::SeqCst) { draw(Some(&line), &bar) } else { writeln!(io::stderr(), "{line}") };
    }

    /// Shows the log: what plugins log, or what `RUST_LOG` asks for.
    pub fn show_log(&self) {
        let wanted = std::env::var("RUST_LOG").ok().and_then(|wanted| wanted.parse().ok());
        let wanted = wanted.unwrap_or_else(|| Targets::new().with_target("hotslot::plugin", Level::INFO));
        let lines = fmt::layer().with_writer(self.clone()).with_ansi(false).without_time().with_filter(wanted);
        tracing_subscriber::registry().with(lines).init();
    }

    /// Changes the status bar.
    pub fn set_bar(&self, new: Bar) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        *bar = new.map(|line| escape_untrusted(&line).into_owned());
        if TAKEN.load(Ordering::SeqCst) {
            // As in `note`.
            let _ = draw(None, &bar);
        }
    }
}

/// The terminal, taken over.
pub struct Taken;

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

/// Puts the terminal back as it was: the lines stay, the bar goes.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // Both are tried, whatever becomes of the other.
        let _ = execute!(io::stdout(), MoveToColumn(0), Clear(ClearType::FromCursorDown), EnableLineWrap, Show);
        let _ = disable_raw_mode();
    }
}

/// Replaces the bar by `line` and draws it anew below. The cursor waits at the beginning of the bar, so whatever is
/// under it can be cleared, also after the window has changed its size and wrapped the old bar.
fn draw(line: Option<&str>, bar: &Bar) -> io::Result<()> {
    const COLORS: Colors = Colors { foreground: Some(Color::White), background: Some(Color::DarkBlue) };
    let mut frame = Vec::new();
    queue!(frame, BeginSynchronizedUpdate, MoveToColumn(0), Clear(ClearType::FromCursorDown))?;
    if let Some(line) = line {
        write!(frame, "{line}\r\n")?;
    }
    // A bar that is wider than the window is cut off by the terminal, which knows best how wide a character is.
    queue!(frame, DisableLineWrap, SetColors(COLORS))?;
    let [first, second] = bar;
    write!(frame, " {first}")?;
    queue!(frame, Clear(ClearType::UntilNewLine))?;
    write!(frame, "\r\n {second}")?;
    queue!(frame, Clear(ClearType::UntilNewLine), ResetColor, EnableLineWrap, MoveToPreviousLine(1))?;
    queue!(frame, EndSynchronizedUpdate)?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(&frame)?;
    stdout.flush()
}

/// The log is shown like any other line.
impl<'a> MakeWriter<'a> for Screen {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine(self)
    }
}

/// One line of the log; the formatter writes it in one piece.
pub struct LogLine<'a>(&'a Screen);

impl Write for LogLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.note(String::from_utf8_lossy(line).trim_end());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! Output: lines that scroll above a status bar, or plain lines without a terminal.

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

/// Whether the terminal is in raw mode. A static, because the panic hook must read it without a lock.
static IS_RAW: AtomicBool = AtomicBool::new(false);

/// The only writer of output. Cloning returns another handle to it.
///
/// Everything is [escaped](escape_untrusted) here, right before it is written, wherever it comes from.
#[derive(Clone)]
pub struct Screen {
    is_replay: bool,
    /// The status bar; the lock also keeps lines from interleaving.
    bar: Arc<Mutex<Bar>>,
}

/// The two lines of the status bar.
pub type Bar = [String; 2];

impl Screen {
    /// Returns a screen that prints plain lines. `is_replay` marks every price as synthetic.
    pub fn new(is_replay: bool) -> Screen {
        Screen { is_replay, bar: Arc::default() }
    }

    /// Takes over the terminal, if there is one, until the guard is dropped or a panic occurs, which is then printed on
    /// a restored terminal.
    pub fn take_terminal(&self) -> io::Result<Option<TerminalGuard>> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(None);
        }
        let print_panic = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore_terminal();
            print_panic(panic);
        }));
        IS_RAW.store(true, Ordering::SeqCst);
        let guard = TerminalGuard;
        enable_raw_mode()?;
        execute!(io::stdout(), Hide)?;
        Ok(Some(guard))
    }

    /// Prints a price, and on a terminal also its details. Elsewhere `RUST_LOG=trader=debug` logs the details.
    pub fn price(&self, price: &str, details: &str) -> io::Result<()> {
        let (price, details) = (escape_untrusted(price), escape_untrusted(details));
        tracing::debug!("{price}, {details}");
        let mark = if self.is_replay { " (replay)" } else { "" };
        if IS_RAW.load(Ordering::SeqCst) {
            let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
            draw(Some(&format!("{price}{mark}   {details}")), &bar)
        } else {
            // Without the lock: a reader that stalls holds up the prices, and not the commands.
            writeln!(io::stdout(), "{price}{mark}")
        }
    }

    /// Prints a line that is not a price.
    pub fn note(&self, line: &str) {
        let line = escape_untrusted(line);
        // There is nowhere to report that standard error cannot be written.
        let _ = if IS_RAW.load(Ordering::SeqCst) {
            draw(Some(&line), &self.bar.lock().unwrap_or_else(PoisonError::into_inner))
        } else {
            writeln!(io::stderr(), "{line}")
        };
    }

    /// Enables logging: what plugins log, or what `RUST_LOG` selects.
    pub fn show_log(&self) {
        let filter = std::env::var("RUST_LOG").ok().and_then(|filter| filter.parse().ok());
        let filter = filter.unwrap_or_else(|| Targets::new().with_target("hotslot::plugin", Level::INFO));
        let lines = fmt::layer().with_writer(self.clone()).with_ansi(false).without_time().with_filter(filter);
        tracing_subscriber::registry().with(lines).init();
    }

    /// Replaces the status bar.
    pub fn set_bar(&self, new: Bar) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        *bar = new.map(|line| escape_untrusted(&line).into_owned());
        if IS_RAW.load(Ordering::SeqCst) {
            // As in `note`.
            let _ = draw(None, &bar);
        }
    }
}

/// Restores the terminal when dropped.
pub struct TerminalGuard;

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        restore_terminal();
    }
}

/// Restores the terminal: the lines stay, the bar is cleared.
fn restore_terminal() {
    if IS_RAW.swap(false, Ordering::SeqCst) {
        // Each is tried even if the other fails.
        let _ = execute!(io::stdout(), MoveToColumn(0), Clear(ClearType::FromCursorDown), EnableLineWrap, Show);
        let _ = disable_raw_mode();
    }
}

/// Prints `line` in place of the bar and redraws the bar below. The cursor rests at the start of the bar, so everything
/// below it can be cleared, even after a resize has wrapped the old bar.
fn draw(line: Option<&str>, bar: &Bar) -> io::Result<()> {
    const COLORS: Colors = Colors { foreground: Some(Color::White), background: Some(Color::DarkBlue) };
    let mut frame = Vec::new();
    queue!(frame, BeginSynchronizedUpdate, MoveToColumn(0), Clear(ClearType::FromCursorDown))?;
    if let Some(line) = line {
        write!(frame, "{line}\r\n")?;
    }
    // The terminal truncates a bar that is wider than the window: it knows best how wide a character is.
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

/// Log lines are printed like any other line.
impl<'a> MakeWriter<'a> for Screen {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine(self)
    }
}

/// One log line; the formatter writes it in one piece.
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

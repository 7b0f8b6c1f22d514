//! A subscriber that knows which spans an event is in, and passes the event on.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::subscriber::Interest;
use tracing_core::{Event, Metadata, Subscriber};

use super::listener::{listener, pass_on};
use crate::Level;

/// The most bytes of fields that are kept for a span.
const FIELDS: usize = 1024;
/// The most spans that are named with an event, from the innermost.
const DEPTH: usize = 32;

#[derive(Default)]
pub(super) struct Forward {
    last: AtomicU64,
    spans: Mutex<Spans>,
}

/// What is known of spans. The lock is never held while foreign code runs: fields are formatted before.
#[derive(Default)]
struct Spans {
    open: BTreeMap<u64, Span>,
    /// Those that each thread is in. A thread that is in none is not listed.
    entered: BTreeMap<u64, Vec<u64>>,
}

struct Span {
    metadata: &'static Metadata<'static>,
    fields: String,
    parent: Option<u64>,
    /// How many handles there are, and spans within it.
    references: usize,
}

impl Forward {
    fn spans(&self) -> MutexGuard<'_, Spans> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spans {
    fn current(&self) -> Option<u64> {
        self.entered.get(&thread())?.last().copied()
    }

    /// Gives one reference up, and those of the spans around it that are no longer needed.
    fn release(&mut self, id: u64) -> bool {
        let (mut next, mut is_closed) = (Some(id), false);
        while let Some(span) = next.and_then(|id| self.open.get_mut(&id)) {
            span.references -= 1;
            if span.references > 0 {
                break;
            }
            is_closed |= next == Some(id);
            next = next.and_then(|id| self.open.remove(&id)).and_then(|span| span.parent);
        }
        is_closed
    }

    /// Spells a span and those around it, from the outermost.
    fn path(&self, innermost: Option<u64>) -> String {
        let mut spans = Vec::new();
        let mut next = innermost;
        while let Some(span) = next.and_then(|id| self.open.get(&id)) {
            spans.push(span);
            next = span.parent.filter(|_| spans.len() < DEPTH);
        }
        let mut path = String::new();
        for span in spans.iter().rev() {
            let separator = if path.is_empty() { "" } else { ":" };
            path.push_str(separator);
            path.push_str(span.metadata.name());
            if !span.fields.is_empty() {
                let _ = write!(path, "{{{}}}", span.fields);
            }
        }
        path
    }
}

/// Returns a number for this thread. A plain cell has no destructor, which would keep a library mapped for as long as the
/// thread lives.
fn thread() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    thread_local! { static NUMBER: Cell<u64> = const { Cell::new(0) }; }
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        }
        number.get()
    })
}

fn level_of(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing_core::Level::ERROR => Level::Error,
        tracing_core::Level::WARN => Level::Warn,
        tracing_core::Level::INFO => Level::Info,
        tracing_core::Level::DEBUG => Level::Debug,
        _ => Level::Trace,
    }
}

impl Subscriber for Forward {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // The host's level can change.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        listener(level_of(metadata)).is_some()
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Text::default();
        attributes.record(&mut fields);
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut spans = self.spans();
        let parent = match attributes.parent() {
            Some(parent) => Some(parent.into_u64()),
            None if attributes.is_contextual() => spans.current(),
            None => None,
        };
        let parent = parent.filter(|parent| match spans.open.get_mut(parent) {
            Some(span) => {
                span.references += 1;
                true
            }
            None => false,
        });
        let fields = fields.cut();
        spans.open.insert(id, Span { metadata: attributes.metadata(), fields, parent, references: 1 });
        Id::from_u64(id)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut added = Text::default();
        values.record(&mut added);
        if let Some(span) = self.spans().open.get_mut(&id.into_u64()) {
            let fields = std::mem::take(&mut span.fields);
            let separator = if fields.is_empty() { "" } else { " " };
            span.fields = Text { message: String::new(), fields: format!("{fields}{separator}{}", added.fields) }.cut();
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let level = level_of(metadata);
        let Some(host) = listener(level) else { return };
        let mut text = Text::default();
        event.record(&mut text);
        let path = {
            let spans = self.spans();
            let innermost = match event.parent() {
                Some(parent) => Some(parent.into_u64()),
                None if event.is_contextual() => spans.current(),
                None => None,
            };
            spans.path(innermost)
        };
        pass_on(host, level, [metadata.target(), &text.message, &text.fields, &path]);
    }

    fn enter(&self, id: &Id) {
        self.spans().entered.entry(thread()).or_default().push(id.into_u64());
    }

    fn exit(&self, id: &Id) {
        let (mut spans, thread) = (self.spans(), thread());
        if let Some(entered) = spans.entered.get_mut(&thread) {
            if let Some(at) = entered.iter().rposition(|entered| *entered == id.into_u64()) {
                entered.remove(at);
            }
            if entered.is_empty() {
                spans.entered.remove(&thread);
            }
        }
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(span) = self.spans().open.get_mut(&id.into_u64()) {
            span.references += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        self.spans().release(id.into_u64())
    }

    fn current_span(&self) -> Current {
        let spans = self.spans();
        match spans.current().and_then(|id| Some((id, spans.open.get(&id)?))) {
            Some((id, span)) => Current::new(Id::from_u64(id), span.metadata),
            None => Current::none(),
        }
    }
}

/// Fields as text, and the message apart.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn cut(mut self) -> String {
        if self.fields.len() > FIELDS {
            let end = (0..=FIELDS).rev().find(|&at| self.fields.is_char_boundary(at)).unwrap_or(0);
            self.fields.truncate(end);
            self.fields.push('…');
        }
        self.fields
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, "{}{name}={value:?}", if self.fields.is_empty() { "" } else { " " }),
        };
    }
}

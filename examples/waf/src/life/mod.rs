//! The life of a node: what it holds on to while it runs, what it is told by signals, and what it tells the service manager.

mod lock;
mod manager;
mod settings;
mod signals;

pub use self::lock::{is_locked, lock};
pub use self::manager::{alive, ready, reloading, stopping};
pub use self::settings::{Changed, Parts, Settings};
pub use self::signals::{Signal, Signals};

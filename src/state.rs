//! State that one generation hands to the next, and what a plugin that runs looks like to the host.

use crate::{BoxError, StopSignal};

/// A plugin's state as bytes, with the name of their layout.
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    /// The layout of the bytes, for instance `"indicator/1"`.
    pub schema: String,
    /// The state.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("schema", &self.schema).field("bytes", &self.bytes.len()).finish()
    }
}

/// A plugin that can hand its state over.
pub trait Stateful {
    /// Saves the state as it is now; `None` if this plugin has none.
    fn save(&self) -> Result<Option<State>, BoxError>;

    /// Takes over a state that another version saved. An error refuses the hand-over.
    fn restore(&self, state: &State) -> Result<(), BoxError>;
}

/// A plugin that is not called but runs, until it is told to stop. See [`Runner`](crate::Runner).
pub trait Runnable: Stateful {
    /// Runs until `stop` is raised. May be called again after it has returned.
    fn run(&self, stop: &StopSignal) -> Result<(), BoxError>;
}

/// Saves the old plugin's state and restores it in the new one: a [`hand_over`](crate::Builder::hand_over) hook.
///
/// An old plugin that has no state leaves the new one as it is.
///
/// # Errors
/// What `save` or `restore` answered; the reload is refused, and the old plugin serves on.
pub fn transfer_state<T: Stateful + ?Sized>(old: &T, new: &T) -> Result<(), BoxError> {
    match old.save()? {
        Some(state) => new.restore(&state),
        None => Ok(()),
    }
}

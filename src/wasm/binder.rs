//! Binds an instance's exports to the user's struct of typed functions, and makes calls through it.

use wasmtime::{Instance, Memory, Store, TypedFunc, WasmParams, WasmResults};

use super::error::WasmCallError;
use super::exports::ExportIndex;
use super::host::{StoreData, slice};
use crate::nesting::{Nested, Watch};

/// Looks up what a plugin exports: the argument of the closure that [`Engine::bind`](super::Engine::bind) takes.
pub struct Binder<'a> {
    pub(super) store: &'a mut Store<StoreData>,
    pub(super) instance: Instance,
    pub(super) exports: &'a ExportIndex,
    /// The instance was made from a snapshot of one that had been set up.
    pub(super) is_resumed: bool,
}

/// A function of a plugin, for one instance of it. See [`Call::run`].
pub struct Func<P, R>(pub(super) TypedFunc<P, R>);

/// A buffer in a plugin's memory that the host writes to. See [`Call::write`].
#[derive(Clone, Copy, Debug)]
pub struct GuestBuffer {
    ptr: u32,
    capacity: u32,
}

impl Binder<'_> {
    /// Looks up the exported function `name`, with numbers as parameters `P` and results `R`, as in
    /// `func::<(u32, u32), u64>`. An `i32` can be a `u32`, and an `i64` a `u64`.
    ///
    /// # Errors
    /// There is none, or its signature differs.
    pub fn func<P: WasmParams, R: WasmResults>(&mut self, name: &str) -> Result<Func<P, R>, WasmCallError> {
        self.optional(name)?.ok_or_else(|| WasmCallError::Unbound(format!("it exports no function `{name}`")))
    }

    /// Looks up a function that need not be there, because it was added to an interface later.
    ///
    /// # Errors
    /// Its signature differs.
    pub fn optional<P: WasmParams, R: WasmResults>(&mut self, name: &str) -> Result<Option<Func<P, R>>, WasmCallError> {
        let Some(export) = self.exports.get(name) else { return Ok(None) };
        let Some(func) = self.instance.get_module_export(&mut *self.store, export).and_then(|item| item.into_func())
        else {
            return Ok(None);
        };
        let typed = func.typed(&*self.store);
        Ok(Some(Func(typed.map_err(|error| WasmCallError::Unbound(format!("its function `{name}`: {error:#}")))?)))
    }

    /// Asks the plugin for a buffer of its own size: calls its export `name`, a function `() -> i64` that returns the
    /// address in the upper half and the capacity in bytes in the lower half.
    ///
    /// In Rust:
    /// ```ignore
    /// static mut INPUT: [u8; 65536] = [0; 65536];
    ///
    /// #[unsafe(no_mangle)]
    /// extern "C" fn input() -> u64 {
    ///     (&raw mut INPUT as u64) << 32 | 65536
    /// }
    /// ```
    ///
    /// # Errors
    /// There is no such function, it traps, or the buffer is not in the plugin's memory.
    pub fn buffer(&mut self, name: &str) -> Result<GuestBuffer, WasmCallError> {
        let func = self.func::<(), u64>(name)?;
        let mut call = Call::new(self.store);
        let (ptr, capacity) = unpack(call.run(&func, ())?);
        call.read(ptr, capacity)?;
        Ok(GuestBuffer { ptr, capacity })
    }

    /// Asks the plugin to allocate a buffer of `capacity` bytes: calls its export `name`, a function `(i32) -> i32` that
    /// takes the capacity and returns the address, or 0.
    ///
    /// # Errors
    /// As for [`buffer`](Binder::buffer); or the plugin returned 0.
    pub fn alloc_buffer(&mut self, name: &str, capacity: u32) -> Result<GuestBuffer, WasmCallError> {
        let func = self.func::<u32, u32>(name)?;
        let mut call = Call::new(self.store);
        let ptr = call.run(&func, capacity)?;
        if ptr == 0 {
            return Err(WasmCallError::Unbound(format!("its function `{name}` has no room for {capacity} bytes")));
        }
        call.read(ptr, capacity)?;
        Ok(GuestBuffer { ptr, capacity })
    }
}

/// A call in progress: data goes into the plugin and out of it through here.
pub struct Call<'a> {
    store: &'a mut Store<StoreData>,
    /// The plugin trapped, and its memory may be in any state.
    broken: bool,
}

impl<'a> Call<'a> {
    pub(super) fn new(store: &'a mut Store<StoreData>) -> Call<'a> {
        Call { store, broken: false }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Calls a function of the plugin.
    ///
    /// # Errors
    /// It trapped, or was stopped. The instance is dropped after this call, and is not to be called again.
    #[inline]
    pub fn run<P: WasmParams, R: WasmResults>(&mut self, func: &Func<P, R>, params: P) -> Result<R, WasmCallError> {
        let _nested = Nested::enter(self.store.data().stack)?;
        let (scope, watch) = (self.store.data().scope.clone(), Watch::begin());
        // So that all that the plugin calls in the host, linked functions included, runs inside of the scope.
        match scope.enter(|| func.0.call(&mut *self.store, params)) {
            Ok(result) => Ok(result),
            Err(error) => Err(self.failed(&error, watch)),
        }
    }

    #[cold]
    #[inline(never)]
    fn failed(&mut self, error: &wasmtime::Error, watch: Watch) -> WasmCallError {
        self.broken = true;
        WasmCallError::from_call(error, self.store.data().bounds.clues(), watch)
    }

    /// Copies bytes into a buffer of the plugin. Returns their address and length, for the function that takes them.
    ///
    /// # Errors
    /// They do not fit; then nothing is written.
    pub fn write(&mut self, buffer: &GuestBuffer, bytes: &[u8]) -> Result<(u32, u32), WasmCallError> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if len > buffer.capacity {
            return Err(WasmCallError::InputTooLarge { len: bytes.len(), capacity: buffer.capacity as usize });
        }
        self.write_at(buffer.ptr, bytes)?;
        Ok((buffer.ptr, len))
    }

    /// Returns the bytes at an address that the plugin gave.
    ///
    /// # Errors
    /// They are not in the plugin's memory.
    pub fn read(&self, ptr: u32, len: u32) -> Result<&[u8], WasmCallError> {
        let memory = self.memory(len as usize)?.map(|memory| memory.data(&*self.store)).unwrap_or_default();
        slice(memory, ptr, len).ok_or_else(|| WasmCallError::OutOfBounds { ptr, len })
    }

    /// Returns the bytes that a packed answer points to: an `i64` with the address in the upper half and the length in the
    /// lower half.
    ///
    /// # Errors
    /// As for [`read`](Call::read).
    pub fn read_packed(&self, answer: u64) -> Result<&[u8], WasmCallError> {
        let (ptr, len) = unpack(answer);
        self.read(ptr, len)
    }

    pub(super) fn data(&self) -> &StoreData {
        self.store.data()
    }

    pub(super) fn data_mut(&mut self) -> &mut StoreData {
        self.store.data_mut()
    }

    /// Returns all of the plugin's memory; nothing if it has none.
    #[inline]
    pub(super) fn memory_bytes(&self) -> &[u8] {
        self.store.data().memory.map(|memory| memory.data(&*self.store)).unwrap_or_default()
    }

    /// Returns the state of this instance, as [`WasmBackend::instance_state`](super::WasmBackend::instance_state) made it, to
    /// read what functions of the host left in it, or to prepare it for them; nothing if that made none, or one of another
    /// type.
    pub fn instance_state<S: 'static>(&mut self) -> Option<&mut S> {
        self.store.data_mut().instance_state_mut()
    }

    /// Checks the length of an answer against its limit.
    pub(super) fn check_answer(&self, len: u32) -> Result<(), WasmCallError> {
        self.store.data().bounds.check_answer(len as usize)
    }

    /// Checks whether the call may go on.
    pub(super) fn check_time(&mut self) -> Result<(), WasmCallError> {
        self.store.data_mut().bounds.check_time()
    }

    pub(super) fn write_at(&mut self, ptr: u32, bytes: &[u8]) -> Result<(), WasmCallError> {
        self.slice_mut(ptr, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Borrows a part of the plugin's memory to write to.
    #[inline]
    pub(super) fn slice_mut(&mut self, ptr: u32, len: usize) -> Result<&mut [u8], WasmCallError> {
        let memory = self.memory(len)?.map(|memory| memory.data_mut(&mut *self.store)).unwrap_or_default();
        let part = memory.get_mut(ptr as usize..).and_then(|rest| rest.get_mut(..len));
        part.ok_or_else(|| WasmCallError::OutOfBounds { ptr, len: u32::try_from(len).unwrap_or(u32::MAX) })
    }

    /// Returns the plugin's memory; nothing can be anywhere in a plugin without one.
    fn memory(&self, len: usize) -> Result<Option<Memory>, WasmCallError> {
        match self.store.data().memory {
            None if len > 0 => {
                Err(WasmCallError::Unbound("bytes of a call are not in its memory: it exports none".to_owned()))
            }
            memory => Ok(memory),
        }
    }
}

/// Splits a packed answer into address (the upper half) and length (the lower half).
pub(super) fn unpack(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

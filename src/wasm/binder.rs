//! From an instance to the user's struct of typed functions, and calls through it.

use wasmtime::{Instance, Memory, Store, TypedFunc, WasmParams, WasmResults};

use super::error::WasmCallError;
use super::exports::ExportIndex;
use super::host::{StoreData, slice};

/// Looks up what a plugin exports, once for every instance.
pub struct Binder<'a> {
    pub(super) store: &'a mut Store<StoreData>,
    pub(super) instance: Instance,
    pub(super) exports: &'a ExportIndex,
}

/// A function of a plugin, for one instance of it. See [`Call::run`].
pub struct Func<P, R>(pub(super) TypedFunc<P, R>);

/// A place in a plugin's memory into which the host writes. See [`Call::write`].
#[derive(Clone, Copy, Debug)]
pub struct GuestBuffer {
    ptr: u32,
    capacity: u32,
}

impl Binder<'_> {
    /// The exported function `name`, with numbers as parameters `P` and results `R`, as in `func::<(u32, u32), u64>`.
    /// An `i32` can be a `u32`, and an `i64` a `u64`.
    ///
    /// # Errors
    /// There is none, or its signature is another one.
    pub fn func<P: WasmParams, R: WasmResults>(&mut self, name: &str) -> Result<Func<P, R>, WasmCallError> {
        self.optional(name)?.ok_or_else(|| WasmCallError::Unbound(format!("it exports no function `{name}`")))
    }

    /// The same, if there is one: for functions that came later to an interface.
    ///
    /// # Errors
    /// Its signature is another one.
    pub fn optional<P: WasmParams, R: WasmResults>(&mut self, name: &str) -> Result<Option<Func<P, R>>, WasmCallError> {
        let Some(export) = self.exports.get(name) else { return Ok(None) };
        let Some(func) = self.instance.get_module_export(&mut *self.store, export).and_then(|item| item.into_func())
        else {
            return Ok(None);
        };
        let typed = func.typed(&*self.store);
        Ok(Some(Func(typed.map_err(|error| WasmCallError::Unbound(format!("its function `{name}`: {error:#}")))?)))
    }

    /// The buffer that the plugin offers through its export `name`: a function `() -> i64` that answers with the
    /// capacity in the lower half and the address in the upper half. It is called once per instance.
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
    /// There is no such function, it fails, or the buffer is not in the plugin's memory.
    pub fn buffer(&mut self, name: &str) -> Result<GuestBuffer, WasmCallError> {
        let func = self.func::<(), u64>(name)?;
        let mut call = Call::new(self.store);
        let (ptr, capacity) = unpack(call.run(&func, ())?);
        call.read(ptr, capacity)?;
        Ok(GuestBuffer { ptr, capacity })
    }

    /// Room for `capacity` bytes that the plugin offers through its export `name`: a function `(i32) -> i32` that is
    /// told how many bytes there may be, and answers with the address, or with 0. It is called once per instance.
    ///
    /// # Errors
    /// As [`buffer`](Binder::buffer), and that there is no such room.
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

/// A call under way: what goes into the plugin and comes out of it passes through here.
pub struct Call<'a> {
    store: &'a mut Store<StoreData>,
    /// The plugin trapped; nobody can say what state its memory is in.
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
    /// It trapped, or was stopped. The instance is lost with that, and further calls in it would be pointless.
    pub fn run<P: WasmParams, R: WasmResults>(&mut self, func: &Func<P, R>, params: P) -> Result<R, WasmCallError> {
        let scope = self.store.data().scope.clone();
        // Functions of the host that the plugin calls, the user's own included, are inside of the scope.
        scope.enter(|| func.0.call(&mut *self.store, params)).map_err(|error| {
            self.broken = true;
            WasmCallError::from_call(&error, self.store.data().bounds.clues())
        })
    }

    /// Copies bytes into a buffer of the plugin; gives their address and length, for the function that takes them.
    ///
    /// # Errors
    /// They do not fit. What the plugin has in the buffer is as it was.
    pub fn write(&mut self, buffer: &GuestBuffer, bytes: &[u8]) -> Result<(u32, u32), WasmCallError> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if len > buffer.capacity {
            return Err(WasmCallError::InputTooLarge { len: bytes.len(), capacity: buffer.capacity as usize });
        }
        self.write_at(buffer.ptr, bytes)?;
        Ok((buffer.ptr, len))
    }

    /// The bytes that the plugin says are at an address.
    ///
    /// # Errors
    /// They are not in its memory.
    pub fn read(&self, ptr: u32, len: u32) -> Result<&[u8], WasmCallError> {
        let memory = self.memory().map(|memory| memory.data(&*self.store)).unwrap_or_default();
        slice(memory, ptr, len).ok_or(WasmCallError::OutOfBounds { ptr, len })
    }

    /// The same, for an answer that packs the length into the lower half of an `i64` and the address into the upper.
    ///
    /// # Errors
    /// As [`read`](Call::read).
    pub fn read_packed(&self, answer: u64) -> Result<&[u8], WasmCallError> {
        let (ptr, len) = unpack(answer);
        self.read(ptr, len)
    }

    pub(super) fn write_at(&mut self, ptr: u32, bytes: &[u8]) -> Result<(), WasmCallError> {
        self.slice_mut(ptr, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// A part of the plugin's memory, to write into.
    pub(super) fn slice_mut(&mut self, ptr: u32, len: usize) -> Result<&mut [u8], WasmCallError> {
        let out_of_bounds = WasmCallError::OutOfBounds { ptr, len: u32::try_from(len).unwrap_or(u32::MAX) };
        let memory = self.memory().map(|memory| memory.data_mut(&mut *self.store)).unwrap_or_default();
        memory.get_mut(ptr as usize..).and_then(|place| place.get_mut(..len)).ok_or(out_of_bounds)
    }

    fn memory(&self) -> Option<Memory> {
        self.store.data().memory
    }
}

/// Address and length, from the upper and the lower half.
pub(super) fn unpack(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

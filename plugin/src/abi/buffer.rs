//! Bytes that cross the boundary: borrowed for a call, or given away.

/// Bytes lent for the duration of a call. `data` may be null if `len` is 0.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Slice {
    /// The first byte.
    pub data: *const u8,
    /// How many bytes.
    pub len: usize,
}

impl Slice {
    /// Lends `bytes`.
    pub fn new(bytes: &[u8]) -> Slice {
        Slice { data: bytes.as_ptr(), len: bytes.len() }
    }

    /// Returns the bytes.
    ///
    /// # Safety
    /// `data` must be valid for reads of `len` bytes for as long as the result is used.
    pub unsafe fn as_bytes<'a>(self) -> &'a [u8] {
        if self.data.is_null() || self.len == 0 {
            return &[];
        }
        // SAFETY: not null; that it is valid for reads of `len` bytes during 'a is this function's own condition.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// Bytes given away, with the function that frees them where they were allocated.
#[derive(Debug)]
#[repr(C)]
pub struct Buffer {
    /// The first byte, or null if there is nothing.
    pub data: *mut u8,
    /// How many bytes.
    pub len: usize,
    /// For `release` only.
    pub capacity: usize,
    /// Frees the bytes; null if there is nothing to free.
    pub release: Option<unsafe extern "C" fn(data: *mut u8, len: usize, capacity: usize)>,
}

impl Buffer {
    /// No bytes.
    pub const EMPTY: Buffer = Buffer { data: std::ptr::null_mut(), len: 0, capacity: 0, release: None };

    /// Returns whether nothing was filled in, so that there is nothing to release either.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0 && self.release.is_none()
    }

    /// Gives `bytes` away.
    pub fn new(bytes: Vec<u8>) -> Buffer {
        let mut bytes = std::mem::ManuallyDrop::new(bytes);
        Buffer { data: bytes.as_mut_ptr(), len: bytes.len(), capacity: bytes.capacity(), release: Some(release) }
    }

    /// Copies the bytes and frees the original.
    ///
    /// # Safety
    /// The buffer must be empty, or as the other side filled it by rule B1 of the [ABI](super), and not released yet.
    pub unsafe fn take(self) -> Vec<u8> {
        // SAFETY: B1, which `take` demands as `with` does; the bytes are copied before they are released.
        unsafe { self.with(<[u8]>::to_vec) }
    }

    /// Shows the bytes to `read`, then frees them, also if `read` panics.
    ///
    /// # Safety
    /// As for [`take`](Buffer::take).
    pub unsafe fn with<R>(self, read: impl FnOnce(&[u8]) -> R) -> R {
        struct Release(Buffer);
        impl Drop for Release {
            fn drop(&mut self) {
                if let Some(release) = self.0.release {
                    // SAFETY: B1: with the three values as they were; the guard owns the buffer, so this is the only time.
                    unsafe { release(self.0.data, self.0.len, self.0.capacity) };
                }
            }
        }
        let guard = Release(self);
        let lent = Slice { data: guard.0.data, len: guard.0.len };
        // SAFETY: B1: they are valid until `release` is called, which the guard does after `read`.
        read(unsafe { lent.as_bytes() })
    }
}

/// Frees what [`Buffer::new`] gave away.
unsafe extern "C" fn release(data: *mut u8, len: usize, capacity: usize) {
    // SAFETY: B1: the three values are those that `Buffer::new` took from a Vec, and this is called once.
    drop(unsafe { Vec::from_raw_parts(data, len, capacity) });
}

//! The result code of every entry.

/// How a call into a plugin ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Status(pub i32);

impl Status {
    /// Done.
    pub const OK: Status = Status(0);
    /// The plugin returned an error.
    pub const FAILED: Status = Status(1);
    /// The plugin panicked, and its shim caught the panic.
    pub const PANICKED: Status = Status(2);
    /// The plugin does not have this entry.
    pub const UNSUPPORTED: Status = Status(3);
    /// The arguments of an interface's method, or its answer, are not what the contract says.
    pub const MALFORMED: Status = Status(4);
}

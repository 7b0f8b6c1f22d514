//! The errors of a plugin.

/// The error type of a plugin; its text reaches the host.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The error of a method that the plugin does not implement; the shims turn it into
/// [`Status::UNSUPPORTED`](crate::abi::Status::UNSUPPORTED).
#[derive(Debug)]
pub(crate) struct Unsupported;

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the plugin does not support this")
    }
}

impl std::error::Error for Unsupported {}

//! What the tests share: a real node in a folder of its own, modules made for the occasion, and an HTTP client.

pub mod browser;
pub mod cage;
pub mod certificate;
pub mod disk;
pub mod fleet;
pub mod http;
pub mod module;
pub mod node;
pub mod signer;
pub mod wait;

pub use http::{Answer, get, request};
pub use module::Module;
pub use node::{Node, TOKEN};

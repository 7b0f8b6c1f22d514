//! The MAC without which no compiled code is run.
//!
//! Machine code runs with the rights of the process, so it counts only with a keyed MAC over its content and over what it
//! is for. It is sealed where it comes from the compiler, and opened where it is loaded.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use wasmtime::Module;

use crate::Digest;

const MAC: usize = blake3::OUT_LEN;
/// What a key is derived for that no module's MAC is made with.
const FUNCTIONS: &str = "hotslot 2026-11-26 compiled functions of modules";

/// A key for compiled code, with the engine that the code is for.
pub(super) struct CodeKey {
    key: [u8; blake3::KEY_LEN],
    /// Tells apart engines that cannot run each other's code.
    pub(super) compatibility: u64,
}

impl CodeKey {
    pub(super) fn new(key: [u8; blake3::KEY_LEN], engine: &wasmtime::Engine) -> CodeKey {
        CodeKey { key, compatibility: compatibility(engine) }
    }

    /// Makes a key that nobody else has.
    pub(super) fn random(engine: &wasmtime::Engine) -> io::Result<CodeKey> {
        Ok(CodeKey::new(random_key()?, engine))
    }

    /// Returns the MAC of code that the compiler returned. It goes in front of the code.
    pub(super) fn seal(&self, digest: Digest, code: &[u8]) -> [u8; MAC] {
        *self.mac(digest, code).as_bytes()
    }

    /// Loads sealed code.
    pub(super) fn open(&self, engine: &wasmtime::Engine, digest: Digest, sealed: &[u8]) -> Result<Module, String> {
        let Some((mac, code)) = sealed.split_first_chunk::<MAC>() else {
            return Err("it is cut short".to_owned());
        };
        // Compared in constant time, by `blake3::Hash`.
        if self.mac(digest, code) != *mac {
            return Err("its MAC does not match".to_owned());
        }
        // SAFETY: `Module::deserialize` requires bytes that `Module::serialize` or `Engine::precompile_module` returned for
        // a compatible engine. The MAC says that a holder of the key sealed exactly these bytes for this digest and this
        // engine. A key is either of one engine and never leaves it, or in a directory and a file that only the user of this
        // process can read (`private_dir::open_dir`, `create_file`, `require_private`). Nothing is sealed but what
        // `Module::serialize` returned (`Compiler::module`), or what `Engine::precompile_module` returned in a child that runs this very
        // program and proved by a key of its own that the bytes are those (`compile_child`). The bytes were read once, and
        // are the ones that were verified.
        unsafe { Module::deserialize(engine, code) }.map_err(|error| format!("{error:#}"))
    }

    /// Returns the MAC of a pack of functions that the compiler returned. It goes in front of the pack.
    pub(super) fn seal_functions(&self, pack: &[u8]) -> [u8; MAC] {
        *self.mac_of_functions(pack).as_bytes()
    }

    /// Returns a sealed pack of functions. The compiler makes machine code of them unseen, so what holds for a module holds for them.
    pub(super) fn open_functions<'a>(&self, sealed: &'a [u8]) -> Result<&'a [u8], String> {
        let (mac, pack) = sealed.split_first_chunk::<MAC>().ok_or("it is cut short")?;
        if self.mac_of_functions(pack) != *mac {
            return Err("its MAC does not match".to_owned());
        }
        Ok(pack)
    }

    fn mac_of_functions(&self, pack: &[u8]) -> blake3::Hash {
        // A key of its own: a pack never passes for a module, nor a module for a pack.
        let mut mac = blake3::Hasher::new_keyed(&blake3::derive_key(FUNCTIONS, &self.key));
        mac.update(&self.compatibility.to_le_bytes()).update(pack);
        mac.finalize()
    }

    fn mac(&self, digest: Digest, code: &[u8]) -> blake3::Hash {
        let mut mac = blake3::Hasher::new_keyed(&self.key);
        mac.update(digest.as_bytes()).update(&self.compatibility.to_le_bytes()).update(code);
        mac.finalize()
    }
}

/// Makes a key that nobody can guess.
pub(super) fn random_key() -> io::Result<[u8; blake3::KEY_LEN]> {
    let mut key = [0; blake3::KEY_LEN];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    Ok(key)
}

/// Returns a number that differs between engines that cannot run each other's code.
fn compatibility(engine: &wasmtime::Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

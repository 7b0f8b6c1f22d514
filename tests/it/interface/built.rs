//! The fixture of a declared interface, built as a library and as a module, in whichever version a test asks for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// An image of the fixture, which a test can vary.
#[derive(Clone)]
pub(crate) struct Image(Vec<u8>);

/// The fixture as a dynamic library, with these features.
pub(crate) fn library(features: &str) -> Image {
    static BUILT: Cache = Cache(Mutex::new(None));
    BUILT.get(features, || {
        let output = cargo(&mut Command::new("cargo"), features, &["--message-format", "json"]);
        let messages = String::from_utf8(output).expect("cargo writes UTF-8");
        let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut plugins = messages.filter(|message| message["target"]["name"] == "hotslot_fixture_typed");
        let files = plugins.find_map(|message| message["filenames"].as_array().cloned());
        let files = files.expect("cargo says where it put the plugin");
        let paths = files.iter().filter_map(|file| file.as_str().map(PathBuf::from));
        let mut libraries = paths.filter(|path| path.extension().is_some_and(|kind| kind != "rlib" && kind != "rmeta"));
        libraries.next().expect("one of the files is the library")
    })
}

/// The same as a WebAssembly module; `None` where no toolchain can build one.
pub(crate) fn module(features: &str) -> Option<Image> {
    static BUILT: Cache = Cache(Mutex::new(None));
    let toolchain = Toolchain::find()?;
    Some(BUILT.get(features, || {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests");
        let (mut command, more) = toolchain.cargo();
        // A cargo that runs the tests has settings of its own in the environment.
        for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER"] {
            command.env_remove(variable);
        }
        command.env("CARGO_TARGET_DIR", &target);
        let wasm = ["--release", "--target", "wasm32-unknown-unknown"];
        cargo(&mut command, features, &[&wasm[..], more].concat());
        target.join("wasm32-unknown-unknown/release/hotslot_fixture_typed.wasm")
    }))
}

fn cargo(command: &mut Command, features: &str, more: &[&str]) -> Vec<u8> {
    let output = command
        .args(["build", "--quiet", "--package", "hotslot-fixture-typed", "--features", features])
        .args(more)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A toolchain that builds for wasm32.
enum Toolchain {
    /// This one has the target.
    Own,
    /// A distribution's, with the sources of the standard library, and a linker that another one brings.
    Distribution { linker: PathBuf },
}

impl Toolchain {
    fn find() -> Option<Toolchain> {
        let ask = |rustc: &str, arguments: &[&str]| {
            let output = Command::new(rustc).arg("--print").args(arguments).output().ok()?;
            Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()))
        };
        let own = ask("rustc", &["target-libdir", "--target", "wasm32-unknown-unknown"]);
        if own.is_some_and(|folder| folder.is_dir()) {
            return Some(Toolchain::Own);
        }
        let sources = ask("/usr/bin/rustc", &["sysroot"])?.join("lib/rustlib/src/rust/library");
        if !sources.is_dir() {
            eprintln!("skipped: no toolchain for wasm32-unknown-unknown (rustup target add wasm32-unknown-unknown)");
            return None;
        }
        let linker = ask("rustc", &["target-libdir"])?.parent()?.join("bin");
        Some(Toolchain::Distribution { linker })
    }

    /// Its cargo, and what to tell it.
    fn cargo(&self) -> (Command, &'static [&'static str]) {
        match self {
            Toolchain::Own => (Command::new("cargo"), &[]),
            Toolchain::Distribution { linker } => {
                let mut command = Command::new("/usr/bin/cargo");
                let path = std::env::var("PATH").unwrap_or_default();
                command.env("PATH", format!("/usr/bin:{path}:{}", linker.display()));
                command.envs([("RUSTC", "/usr/bin/rustc"), ("RUSTC_BOOTSTRAP", "1")]);
                (command, &["-Zbuild-std=std,panic_abort", "-Zbuild-std-features="])
            }
        }
    }
}

/// What has been built, by features. The lock is held over a build: they overwrite each other's files.
struct Cache(Mutex<Option<HashMap<String, Image>>>);

impl Cache {
    fn get(&self, features: &str, build: impl FnOnce() -> PathBuf) -> Image {
        let mut built = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let built = built.get_or_insert_default();
        let entry = built.entry(features.to_owned());
        let image = entry.or_insert_with(|| {
            let path = build();
            Image(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        });
        image.clone()
    }
}

impl Image {
    /// With this answer.
    pub(crate) fn answering(self, answer: u64) -> Image {
        self.overwritten(b"ANSWER:", 7, format!("{answer:08}").as_bytes())
    }

    /// With this version instead of 1.0.0, which has to be as long.
    pub(crate) fn version(self, version: &str) -> Image {
        assert_eq!(version.len(), "1.0.0".len());
        let Image(bytes) = &self;
        if bytes.starts_with(b"\0asm") {
            // The section is called `version`, and its text follows.
            return self.overwritten(b"\x07version1.0.0", 8, version.as_bytes());
        }
        // The second text of the descriptor, behind the name.
        self.overwritten(b"fixture\0", 96, version.as_bytes())
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0
    }

    /// Writes over what lies so many bytes behind the beginning of a mark, which is there once.
    fn overwritten(mut self, mark: &[u8], offset: usize, with: &[u8]) -> Image {
        let places: Vec<_> = self.0.windows(mark.len()).enumerate().filter(|(_, window)| *window == mark).collect();
        let sound = places.iter().map(|(at, _)| at + offset).filter(|&at| {
            // Of several, the one that is followed by what is to be overwritten.
            self.0[at..].first().is_some_and(u8::is_ascii_digit)
        });
        let sound: Vec<_> = sound.collect();
        assert_eq!(sound.len(), 1, "{} is there {} times", String::from_utf8_lossy(mark), sound.len());
        self.0[sound[0]..][..with.len()].copy_from_slice(with);
        self
    }
}

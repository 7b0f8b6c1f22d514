//! The images that the tests load: one Rust plugin, built once and varied by overwriting bytes, and libraries in C.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use hotslot::Candidate;
use hotslot_plugin::abi;

/// The plugin in fixtures/plugin, as a test wants it.
#[derive(Clone)]
pub(super) struct Fixture {
    bytes: Vec<u8>,
    places: Places,
}

/// Where an image is overwritten.
#[derive(Clone, Copy)]
struct Places {
    answer: usize,
    script: usize,
    descriptor: usize,
}

/// As it was built: it answers 0, calls itself "fixture" 1.0.0, and does all that it is asked for.
pub(super) fn fixture() -> Fixture {
    static BUILT: LazyLock<Fixture> = LazyLock::new(|| Fixture::from_file(&build(&mut Command::new("cargo"))));
    BUILT.clone()
}

/// A fixture with this answer.
pub(super) fn answering(answer: u32) -> Fixture {
    fixture().answering(answer)
}

impl Fixture {
    /// The fixture in an image that was built otherwise.
    pub(super) fn from_file(path: &Path) -> Fixture {
        let bytes = read(path);
        let places = Places {
            answer: the_only(&bytes, b"ANSWER:"),
            script: the_only(&bytes, b"SCRIPT:"),
            descriptor: the_only(&bytes, &abi::MAGIC) - abi::MAGIC.len(),
        };
        Fixture { bytes, places }
    }

    pub(super) fn answering(self, answer: u32) -> Fixture {
        let place = self.places.answer;
        self.overwritten(place, format!("{answer:08}").as_bytes())
    }

    /// Says what goes wrong, and when: `step=what`.
    pub(super) fn script(self, script: &str) -> Fixture {
        let place = self.places.script;
        self.overwritten(place, format!("{script:32}").as_bytes())
    }

    pub(super) fn name(self, name: &str) -> Fixture {
        self.text(0, name)
    }

    pub(super) fn version(self, version: &str) -> Fixture {
        self.text(1, version)
    }

    pub(super) fn interface(self, interface: &str) -> Fixture {
        self.text(2, interface)
    }

    pub(super) fn schema(self, schema: &str) -> Fixture {
        self.text(3, schema)
    }

    /// Overwrites the name of an exported symbol where the loader looks it up.
    pub(super) fn without_export(mut self, symbol: &str) -> Fixture {
        let entry = format!("\0{symbol}\0");
        let mut found = 0;
        while let Some(at) = find(&self.bytes, entry.as_bytes()) {
            self.bytes[at + 1] = b'-';
            found += 1;
        }
        assert!(found > 0, "there is no {symbol}");
        self
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Overwrites one of the descriptor's four texts.
    fn text(self, index: usize, text: &str) -> Fixture {
        let place = self.places.descriptor + std::mem::offset_of!(abi::Identity, name) + index * size_of::<abi::Text>();
        self.overwritten(place, &abi::Text::new(text).bytes)
    }

    fn overwritten(mut self, place: usize, bytes: &[u8]) -> Fixture {
        self.bytes[place..place + bytes.len()].copy_from_slice(bytes);
        self
    }
}

impl From<Fixture> for Candidate {
    fn from(fixture: Fixture) -> Candidate {
        Candidate::new(fixture.bytes)
    }
}

impl From<&Fixture> for Candidate {
    fn from(fixture: &Fixture) -> Candidate {
        Candidate::new(&fixture.bytes[..])
    }
}

/// Compiles fixtures/`source` to a shared library with the C compiler of the system.
pub(super) fn c_library(source: &str, flags: &[&str]) -> Vec<u8> {
    c_library_for("cc", source, flags).expect("a C compiler is needed for the tests")
}

/// The same with another compiler; `None` if it is not installed.
pub(super) fn c_library_for(compiler: &str, source: &str, flags: &[&str]) -> Option<Vec<u8>> {
    let folder = TemporaryFolder::new();
    let library = folder.path().join("library.so");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let compiled = Command::new(compiler)
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, &fixtures.join(source)])
        .args(flags)
        .output();
    let output = match compiled {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        output => output.expect("the compiler starts"),
    };
    assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
    Some(read(&library))
}

/// fixtures/answer.c with this answer.
pub(super) fn c_answering(answer: u32) -> Vec<u8> {
    static COMPILED: LazyLock<Vec<u8>> = LazyLock::new(|| c_library("answer.c", &[]));
    let mut library = COMPILED.clone();
    let place = the_only(&library, b"ANSWER:");
    library[place..place + 8].copy_from_slice(format!("{answer:08}").as_bytes());
    library
}

/// Builds fixtures/plugin with `cargo` and gives the path of the image.
pub(super) fn build(cargo: &mut Command) -> PathBuf {
    let output = cargo
        .args(["build", "--release", "--package", "hotslot-fixture", "--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut plugins = messages.filter(|message| message["target"]["name"] == "hotslot_fixture");
    let image = plugins.find_map(|message| message["filenames"][0].as_str().map(PathBuf::from));
    image.expect("cargo says where it put the plugin")
}

/// A folder that is gone at the end of the test. Its name is drawn by lot: a process that was killed leaves one, and there will
/// be others with its number.
pub(super) struct TemporaryFolder(tempfile::TempDir);

impl TemporaryFolder {
    pub(super) fn new() -> TemporaryFolder {
        let folder = tempfile::Builder::new().prefix("hotslot-tests-").tempdir();
        TemporaryFolder(folder.expect("the temporary folder takes a folder"))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where that ends which has to be there once.
fn the_only(bytes: &[u8], mark: &[u8]) -> usize {
    let end = find(bytes, mark).expect("the image has the mark") + mark.len();
    assert!(find(&bytes[end..], mark).is_none(), "the image has the mark twice");
    end
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

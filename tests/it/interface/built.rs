//! The fixture of a declared interface, built as a library and as a module, in whichever version a test asks for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;

/// An image of the fixture, which a test can vary.
#[derive(Clone)]
pub(crate) struct Image(Vec<u8>);

/// The fixture as a dynamic library, in the variant of this name; the one for version 1.0 has none.
pub(crate) fn library(variant: &str) -> Image {
    static BUILT: Cache = Cache(Mutex::new(None));
    let flags = flags(variant);
    BUILT.get(variant, || Some(hotslot_guests::library(PACKAGE, &[], &[&flags[0], &flags[1]]))).expect("it is built")
}

/// The same as a WebAssembly module; `None` where no toolchain can build one.
pub(crate) fn module(variant: &str) -> Option<Image> {
    static BUILT: Cache = Cache(Mutex::new(None));
    let flags = flags(variant);
    BUILT.get(variant, || hotslot_guests::module(PACKAGE, &[&flags[0], &flags[1]]))
}

fn flags(variant: &str) -> [String; 2] {
    let variant = if variant.is_empty() { "v1_0" } else { variant };
    ["--cfg".to_owned(), format!("fixture=\"{variant}\"")]
}

const PACKAGE: &str = "hotslot-fixture-typed";

/// What has been built, by variant. The lock is held over a build: they overwrite each other's files.
struct Cache(Mutex<Option<HashMap<String, Option<Image>>>>);

impl Cache {
    fn get(&self, variant: &str, build: impl FnOnce() -> Option<PathBuf>) -> Option<Image> {
        let mut built = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let built = built.get_or_insert_default();
        let entry = built.entry(variant.to_owned());
        let image = entry.or_insert_with(|| {
            let path = build()?;
            Some(Image(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))))
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

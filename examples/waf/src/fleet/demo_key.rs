//! The demo's own key: made at its first start, so that its fleet takes nothing unsigned, as a real one does.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hotslot::BoxError;
use hotslot::host::Interface;
use hotslot_trust::sign::KeyPair;
use hotslot_trust::{Manifest, Root};
use waf_interface::Waf;

/// How long the demo's root holds.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Where everything is that has to do with signatures.
pub(super) struct Signed {
    pub key: PathBuf,
    pub root: PathBuf,
    /// The module that the nodes start with, and its manifest and signatures beside it.
    pub module: PathBuf,
}

impl Signed {
    /// The names of the files beside the module, by the fields of an upload.
    pub fn beside(&self) -> [(&'static str, PathBuf); 2] {
        let with = |extension: &str| {
            let mut name = self.module.clone().into_os_string();
            name.push(extension);
            PathBuf::from(name)
        };
        [("manifest", with(".manifest")), ("signatures", with(".manifest.minisig"))]
    }
}

/// Makes the key, the root that names it, and a signed copy of the module, each unless it is there.
pub(super) fn sign(data: &Path, slot: &str, module: &Path) -> Result<Signed, BoxError> {
    let folder = data.join("keys");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let signed = Signed {
        key: folder.join("demo.key"),
        root: folder.join("root.json"),
        module: data.join(format!("{slot}.wasm")),
    };
    let key = match fs::read_to_string(&signed.key) {
        Ok(text) => KeyPair::read(&text, None).map_err(|error| format!("{}: {error}", signed.key.display()))?,
        Err(_) => {
            let key = KeyPair::generate()?;
            secret(&signed.key, &key.secret_file()?)?;
            fs::write(folder.join("demo.pub"), format!("untrusted comment: the fleet demo's key\n{}\n", key.public()))?;
            key
        }
    };
    if !signed.root.exists() {
        fs::write(&signed.root, Root::first(&[key.public()], SystemTime::now() + LIFE).to_bytes())?;
    }
    let bytes = fs::read(module).map_err(|error| format!("{}: {error}", module.display()))?;
    let [(_, manifest), (_, signatures)] = signed.beside();
    let is_signed = fs::read(&manifest).is_ok_and(|document| Manifest::describes(&document, &bytes).is_ok());
    if !is_signed || fs::read(&signed.module).ok().as_ref() != Some(&bytes) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let document = Manifest::new(slot, &bytes, key.public().id()).counter(now);
        let document = document.interface(<dyn Waf as Interface>::ID).to_bytes();
        fs::write(&signed.module, &bytes)?;
        fs::write(signatures, key.sign(&document)?)?;
        fs::write(manifest, document)?;
    }
    Ok(signed)
}

fn secret(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

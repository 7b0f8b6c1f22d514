//! `cargo hotslot new`: creates a workspace with an interface, a plugin and a host, ready to run.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::files::shown;
use crate::{Failure, Outcome};

#[derive(Args)]
pub(crate) struct New {
    /// The directory to create; its last component becomes the prefix of the crates' names
    name: PathBuf,
    /// Depend on this checkout of hotslot instead of the published crates
    #[arg(long, value_name = "DIR")]
    path_to_hotslot: Option<PathBuf>,
}

/// Each file's path and text. The manifests are not named Cargo.toml here, because cargo would leave them out of the
/// package.
const TEMPLATE: [(&str, &str); 9] = [
    ("Cargo.toml", include_str!("../template/Cargo.toml.in")),
    (".gitignore", include_str!("../template/gitignore")),
    ("README.md", include_str!("../template/README.md")),
    ("interface/Cargo.toml", include_str!("../template/interface/Cargo.toml.in")),
    ("interface/src/lib.rs", include_str!("../template/interface/lib.rs")),
    ("plugin/Cargo.toml", include_str!("../template/plugin/Cargo.toml.in")),
    ("plugin/src/lib.rs", include_str!("../template/plugin/lib.rs")),
    ("host/Cargo.toml", include_str!("../template/host/Cargo.toml.in")),
    ("host/src/main.rs", include_str!("../template/host/main.rs")),
];

impl New {
    pub(crate) fn run(&self) -> Outcome {
        let name = self.name.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        checked(name).map_err(|reason| Failure::Misuse(format!("{}: {reason}", shown(&self.name))))?;
        let (library, plugin) = match &self.path_to_hotslot {
            None => {
                let version = concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"").to_owned();
                (version.clone(), version)
            }
            Some(folder) => (path_dependency(folder, "")?, path_dependency(folder, "plugin")?),
        };
        let write = |path: &Path, text: &str| {
            let text = text.replace("{{name}}", name).replace("{{crate}}", &name.replace('-', "_"));
            let text = text.replace("{{hotslot}}", &library).replace("{{hotslot-plugin}}", &plugin);
            std::fs::create_dir_all(path.parent().unwrap_or(path))?;
            std::fs::write(path, text)
        };
        // Fails if the directory exists, so that nothing is overwritten.
        let made = std::fs::create_dir(&self.name);
        let written =
            made.and_then(|()| TEMPLATE.iter().try_for_each(|(path, text)| write(&self.name.join(path), text)));
        written.map_err(|error| Failure::Misuse(format!("{}: {error}", shown(&self.name))))?;
        Ok(format!("created {}; see its README.md for the first commands\n", shown(&self.name)))
    }
}

/// Rejects a name that cargo would not accept for a crate.
fn checked(name: &str) -> Result<(), &'static str> {
    let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match name.as_bytes() {
        [] => Err("the name is missing"),
        [first, ..] if !first.is_ascii_alphabetic() => Err("a name must start with a letter"),
        all if all.len() > 48 => Err("a name must not be longer than 48 characters"),
        all if !all.iter().copied().all(is_sound) => Err("a name may contain only letters, digits, `-` and `_`"),
        _ => Ok(()),
    }
}

/// Formats a dependency on a crate in a checkout for a manifest.
fn path_dependency(folder: &Path, package: &str) -> Result<String, Failure> {
    let misuse = |reason: &str| Failure::Misuse(format!("--path-to-hotslot {}: {reason}", shown(folder)));
    let path = folder.join(package).canonicalize().map_err(|error| misuse(&error.to_string()))?;
    if !path.join("Cargo.toml").is_file() {
        return Err(misuse("there is no Cargo.toml in it"));
    }
    let path = path.to_str().ok_or_else(|| misuse("the path is not UTF-8"))?;
    // JSON's strings are among TOML's.
    Ok(format!("path = {}", serde_json::Value::from(path)))
}

//! What the trader is made of, and what it loads: the program, a copy of the workspace to edit, finished plugins.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value as Json;

use super::Start;

/// Everything here is made in this folder, and found again there the next time.
const FOLDER: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/trader");

/// The trader itself.
pub(crate) fn example() -> &'static Path {
    static EXAMPLE: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        let mut cargo = cargo();
        cargo.args(["build", "--package", "hotslot", "--example", "trader"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        build(&mut cargo, |message| message["target"]["name"] == "trader", "executable")
    })
}

/// A copy of the workspace that belongs to one test at a time.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
    /// Locked for as long as the copy is in use, also against other processes.
    _lock: File,
}

impl Workspace {
    /// The copy, as the original is, with its price printer built so that nobody waits for its dependencies.
    pub(crate) fn copy() -> Workspace {
        fs::create_dir_all(FOLDER).unwrap();
        let folder = Path::new(FOLDER);
        let lock = File::create(folder.join("lock")).unwrap();
        lock.lock().unwrap();
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let root = folder.join("workspace");
        mirror(original, &root).unwrap();
        let workspace = Workspace { root, target: folder.join("target"), _lock: lock };
        workspace.build("price_printer");
        workspace
    }

    /// A trader that builds the price printer of this copy.
    pub(crate) fn start(&self) -> Start {
        Start::with(&self.plugin("price_printer")).building_into(&self.target)
    }

    /// Replaces something in the price printer's source by something else.
    #[track_caller]
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let source = fs::read_to_string(self.source()).unwrap();
        assert!(source.contains(from), "{from:?} is not in:\n{source}");
        fs::write(self.source(), source.replace(from, to)).unwrap();
    }

    fn source(&self) -> PathBuf {
        self.plugin("price_printer").join("src/lib.rs")
    }

    fn plugin(&self, name: &str) -> PathBuf {
        self.root.join("examples/trader/plugins").join(name)
    }

    /// Builds a plugin and gives its bytes.
    fn build(&self, name: &str) -> Vec<u8> {
        let mut cargo = cargo();
        cargo.arg("build").current_dir(self.plugin(name)).env("CARGO_TARGET_DIR", &self.target);
        let library = build(&mut cargo, |message| message["target"]["name"] == name, "filenames");
        fs::read(library).unwrap()
    }
}

/// Plugins that are built already, as bytes.
pub(crate) struct Finished {
    pub(crate) solusdc: Vec<u8>,
    pub(crate) btcusdc: Vec<u8>,
    pub(crate) spread: Vec<u8>,
    pub(crate) second_venue: Vec<u8>,
    /// See `plugins/hostile.rs`: it attacks while it runs.
    pub(crate) hostile: Vec<u8>,
    /// The same, when it is created.
    pub(crate) hostile_at_create: Vec<u8>,
    /// The same, when it takes the state over.
    pub(crate) hostile_at_restore: Vec<u8>,
    /// The same, with the text of a panic.
    pub(crate) hostile_in_panic: Vec<u8>,
}

impl Finished {
    pub(crate) fn plugins() -> &'static Finished {
        static FINISHED: OnceLock<Finished> = OnceLock::new();
        FINISHED.get_or_init(|| {
            let workspace = Workspace::copy();
            let edited = |from: &str, to: &str| {
                workspace.edit(from, to);
                workspace.build("price_printer")
            };
            let solusdc = workspace.build("price_printer");
            let btcusdc = edited("SOLUSDC", "BTCUSDC");
            fs::write(workspace.source(), include_str!("plugins/hostile.rs")).unwrap();
            Finished {
                solusdc,
                btcusdc,
                spread: workspace.build("spread"),
                second_venue: workspace.build("second_venue"),
                hostile: workspace.build("price_printer"),
                hostile_at_create: edited("WAY: Way = Way::Run", "WAY: Way = Way::Create"),
                hostile_at_restore: edited("WAY: Way = Way::Create", "WAY: Way = Way::Restore"),
                hostile_in_panic: edited("WAY: Way = Way::Restore", "WAY: Way = Way::Panic"),
            }
        })
    }
}

/// Makes `to` what `from` is, but for hidden files and what cargo builds. What is the same already is not touched, so
/// that cargo does not build it again.
fn mirror(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_file() {
        let bytes = fs::read(from)?;
        let is_same = fs::read(to).is_ok_and(|own| own == bytes);
        return if is_same { Ok(()) } else { fs::write(to, bytes) };
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !from.join(entry.file_name()).exists() {
            let is_folder = entry.file_type()?.is_dir();
            if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }?;
        }
    }
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        if name == "target" || name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        match mirror(&from.join(&name), &to.join(&name)) {
            // An editor's passing file.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// The cargo that runs these tests, or the one on the path.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    without_our_cargo(&mut cargo);
    cargo
}

/// Takes what cargo says about this test out of the environment: build scripts would take it for a change.
pub(crate) fn without_our_cargo(command: &mut Command) -> &mut Command {
    let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        command.env_remove(name);
    }
    command
}

/// Runs cargo to its end; gives the file under `key` in the message that `is_it` picks.
fn build(cargo: &mut Command, is_it: impl Fn(&Json) -> bool, key: &str) -> PathBuf {
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{cargo:?}: {}", output.status);
    let messages =
        output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Json>(line).ok());
    let artifact = messages.filter(|message| message["reason"] == "compiler-artifact").find(is_it);
    let artifact = artifact.unwrap_or_else(|| panic!("{cargo:?} did not make it"));
    let file = artifact[key].as_str().or(artifact[key][0].as_str()).expect("a file");
    file.into()
}

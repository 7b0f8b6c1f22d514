//! The copy of the sources that is mutated, and what the compiler makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs};

use serde_json::Value;

use crate::tests::{Program, Suite};

/// What tells a mutant whether it is chosen, and notes where the tests come to.
const SWITCH: &str = r#"
pub(crate) mod mutant {
    use std::fs::File;
    use std::io::Write;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[allow(dead_code, unused_variables)]
    pub(crate) fn is_on(id: usize) -> bool {
        static CHOSEN: LazyLock<usize> =
            LazyLock::new(|| std::env::var("HOTSLOT_MUTANT").ok().and_then(|id| id.parse().ok()).unwrap_or(0));
        static REACHED: LazyLock<Option<File>> = LazyLock::new(|| {
            let path = std::env::var_os("HOTSLOT_MUTANTS_REACHED")?;
            File::options().append(true).create(true).open(path).ok()
        });
        static NOTED: [AtomicBool; 8192] = [const { AtomicBool::new(false) }; 8192];
        if let Some(mut file) = REACHED.as_ref().filter(|_| !NOTED[id].swap(true, Ordering::Relaxed)) {
            let _ = file.write_all(format!("{id}\n").as_bytes());
        }
        *CHOSEN == id
    }
}
"#;

pub struct Tree {
    root: PathBuf,
    target: PathBuf,
    originals: BTreeMap<String, String>,
}

impl Tree {
    /// A tree whose library has the switch in it.
    pub fn new(root: PathBuf) -> Result<Tree, Box<dyn Error>> {
        let root = root.canonicalize()?;
        let target = PathBuf::from(env::var("CARGO_TARGET_DIR")?);
        let mut originals = BTreeMap::new();
        for entry in fs::read_dir(root.join("src/slot"))? {
            let path = entry?.path();
            let name = path.strip_prefix(&root)?.to_str().ok_or("a name in UTF-8")?.to_owned();
            originals.insert(name, fs::read_to_string(&path)?);
        }
        let library = root.join("src/lib.rs");
        let text = fs::read_to_string(&library)?;
        fs::write(library, text + SWITCH)?;
        Ok(Tree { root, target, originals })
    }

    pub fn original(&self, file: &str) -> Result<&str, String> {
        self.originals.get(file).map(String::as_str).ok_or_else(|| format!("{file} is not in src/slot"))
    }

    pub fn write(&self, file: &str, text: &str) -> Result<(), Box<dyn Error>> {
        Ok(fs::write(self.root.join(file), text)?)
    }

    /// Takes all mutants out again.
    pub fn restore(&self) -> Result<(), Box<dyn Error>> {
        for (file, text) in &self.originals {
            if fs::read_to_string(self.root.join(file))? != *text {
                self.write(file, text)?;
            }
        }
        Ok(())
    }

    /// The mutants in the tree that the compiler refuses, with or without the primitives of the models.
    pub fn check(&self) -> Result<BTreeSet<usize>, Box<dyn Error>> {
        for models in [false, true] {
            let mut command = self.cargo(&["check", "--lib", "--package", "hotslot"], models);
            let refused = self.refused(&output(&mut command)?.1)?;
            if !refused.is_empty() {
                return Ok(refused);
            }
        }
        Ok(BTreeSet::new())
    }

    fn refused(&self, messages: &[Value]) -> Result<BTreeSet<usize>, Box<dyn Error>> {
        let mut refused = BTreeSet::new();
        for message in messages {
            let message = &message["message"];
            if message["level"] != "error" {
                continue;
            }
            let spans = message["spans"].as_array().map_or(&[][..], Vec::as_slice);
            if spans.is_empty() {
                continue;
            }
            let mut explained = false;
            // In the lines of what is wrong; or else in those just before, of an operand that only looks wrong in its place.
            for (primary_only, above) in [(true, 0), (false, 0), (true, 3), (true, 12)] {
                for span in spans.iter().filter(|span| !primary_only || span["is_primary"] == true) {
                    let text = fs::read_to_string(self.root.join(span["file_name"].as_str().unwrap_or_default()))?;
                    let line = |name: &str| span[name].as_u64().unwrap_or(1) as usize;
                    let first = (line("line_start") - 1).saturating_sub(above);
                    let lines = text.lines().skip(first).take(line("line_end") - first);
                    for id in lines.flat_map(ids) {
                        explained = true;
                        refused.insert(id);
                    }
                }
                if explained {
                    break;
                }
            }
            if !explained {
                return Err(
                    format!("no mutant explains this: {}", message["rendered"].as_str().unwrap_or_default()).into()
                );
            }
        }
        Ok(refused)
    }

    /// Builds the tests; `None` if they do not build.
    pub fn build(&self, models: bool) -> Result<Option<Suite>, Box<dyn Error>> {
        let mut arguments = vec!["test", "--no-run", "--lib", "--package", "hotslot"];
        if !models {
            arguments.extend(["--package", "hotslot-tests", "--test", "it"]);
        }
        let (is_built, messages) = output(&mut self.cargo(&arguments, models))?;
        if !is_built {
            return Ok(None);
        }
        let programs = messages.iter().filter_map(|message| {
            let program = message["executable"].as_str()?;
            let package = message["target"]["src_path"].as_str()?;
            let directory = if package.contains("/tests/") { self.root.join("tests") } else { self.root.clone() };
            let arguments = if models { vec!["slot::loom".to_owned()] } else { Vec::new() };
            // Hotslot's own tests, and the tests of the slot: the package of the latter has no unit tests.
            (package.ends_with("/src/lib.rs") && !package.contains("/tests/src/") || package.ends_with("/it/main.rs"))
                .then(|| Program { path: program.into(), directory, arguments })
        });
        Ok(Some(Suite::new(programs.collect())))
    }

    fn cargo(&self, arguments: &[&str], models: bool) -> Command {
        let mut command = Command::new("cargo");
        command.args(arguments).args(["--quiet", "--no-default-features", "--message-format", "json"]);
        let (target, flags) = if models { ("loom", "--cfg hotslot_loom -Awarnings") } else { ("tests", "-Awarnings") };
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", self.target.join(target)).env("RUSTFLAGS", flags);
        command.stderr(Stdio::null());
        command
    }
}

/// The mutants that a line is marked with.
fn ids(line: &str) -> Vec<usize> {
    let marks = line.split("/*m").skip(1);
    marks.filter_map(|mark| mark.split("*/").next()?.parse().ok()).collect()
}

fn output(command: &mut Command) -> Result<(bool, Vec<Value>), Box<dyn Error>> {
    let output = command.output()?;
    let lines = std::str::from_utf8(&output.stdout)?.lines();
    Ok((output.status.success(), lines.filter_map(|line| serde_json::from_str(line).ok()).collect()))
}

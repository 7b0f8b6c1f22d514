//! A new workspace, from its creation to a hot-swapped plugin.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::support::{Folder, cargo, done, hotslot};

/// The checkout of hotslot, for a workspace that cannot use published crates.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn a_new_workspace_builds_passes_its_test_and_replaces_its_plugin() {
    let folder = Folder::new();
    let path = folder.path("my-greeter");
    let arguments = ["hotslot", "new", path.to_str().unwrap(), "--path-to-hotslot", SOURCES];
    assert!(hotslot(arguments).ok().contains("README.md"));
    // Uses the versions that are here already, so that nothing is downloaded.
    std::fs::copy(Path::new(SOURCES).join("Cargo.lock"), path.join("Cargo.lock")).unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new");
    let in_workspace = |arguments: &[&str]| {
        let mut cargo = cargo();
        cargo.args(arguments).args(["--offline", "--quiet"]).current_dir(&path).env("CARGO_TARGET_DIR", &target);
        cargo
    };
    done(&mut in_workspace(&["build"]));
    let tests = done(&mut in_workspace(&["test", "--package", "my-greeter-plugin"]));
    let tests = String::from_utf8(tests.stdout).unwrap();
    assert!(tests.contains("1 passed"), "{tests}");

    // What a user would run before deploying it.
    let library = target.join(format!("debug/libmy_greeter_plugin{}", std::env::consts::DLL_SUFFIX));
    let said = hotslot(["check".as_ref(), library.as_os_str(), "--against".as_ref(), library.as_os_str()]).ok();
    assert!(said.contains("my-greeter-plugin 0.1.0") && said.contains("`greeter` 1.0"), "{said}");
    let contract = hotslot(["inspect".as_ref(), "--contract".as_ref(), library.as_os_str()]).ok();
    assert_eq!(contract, "interface greeter 1.0\nmethod greet(&str,Tone{Warm=0,Dry=1})->String\n");

    let host = target.join("debug/my-greeter-host");
    let mut host =
        std::process::Command::new(host).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the host starts");
    let input = host.stdin.take();
    let mut greetings = BufReader::new(host.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(greetings.next().as_deref(), Some("Hello, world!"));
    let source = path.join("plugin/src/lib.rs");
    let text = std::fs::read_to_string(&source).unwrap();
    std::fs::write(&source, text.replace("Hello, {name}!", "Servus, {name}!")).unwrap();
    done(&mut in_workspace(&["build", "--package", "my-greeter-plugin"]));
    let next = greetings.find(|greeting| greeting != "Hello, world!");
    assert_eq!(next.as_deref(), Some("Servus, world!"));
    drop(input);
    assert!(host.wait().unwrap().success(), "it exits at the end of its input");
}

#[test]
fn published_crates_are_depended_on_by_version() {
    let folder = Folder::new();
    let path = folder.path("a_1");
    hotslot(["new".as_ref(), path.as_os_str()]).ok();
    let manifest = std::fs::read_to_string(path.join("Cargo.toml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(manifest.contains(&format!("hotslot-plugin = {{ version = \"{version}\" }}")), "{manifest}");
    for file in ["README.md", "interface/src/lib.rs", "plugin/Cargo.toml", "host/src/main.rs"] {
        assert!(!std::fs::read_to_string(path.join(file)).unwrap().contains("{{"), "{file}");
    }
}

#[test]
fn what_is_there_is_left_alone_and_names_are_looked_at() {
    let folder = Folder::new();
    let file = folder.write("taken", "mine");
    let empty = folder.path("empty");
    std::fs::create_dir(&empty).unwrap();
    for path in [&file, &empty] {
        assert!(hotslot(["new".as_ref(), path.as_os_str()]).failed(2).contains("exists"));
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
    for name in ["1st", "a b", "é", "", "x.y", "..", "a{{name}}", &"x".repeat(49)] {
        let path = format!("{}/{name}", folder.path("").display());
        hotslot(["new", path.trim_end_matches('/')]).failed(2);
    }
    let path = folder.path("sound");
    let nowhere = ["new", path.to_str().unwrap(), "--path-to-hotslot", "/nowhere"];
    assert!(hotslot(nowhere).failed(2).contains("/nowhere"));
    assert!(!path.exists(), "nothing is created before every argument is checked");
}

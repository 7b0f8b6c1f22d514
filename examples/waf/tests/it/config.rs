//! A configuration with a mistake stops the node, and the message names the line.

use crate::support::Module;
use crate::support::node::Folder;

fn complaint(text: &str) -> String {
    let folder = Folder::new(&Module::new("1.0.0"), "");
    let mut command = folder.command();
    std::fs::write(folder.path("waf.toml"), text).unwrap();
    let output = command.output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_mistake_is_named_with_file_and_line() {
    for (line, what) in [
        ("hot_reload_enable = true", "hot_reload_enable"),
        ("keep_previous_versions = -1", "invalid value"),
        ("validate_before_reload = \"yes\"", "invalid type"),
    ] {
        let complaint = complaint(&format!("[waf.wasm]\n{line}\n"));
        assert!(
            complaint.contains("waf.toml") && complaint.contains("line 2") && complaint.contains(what),
            "{complaint}"
        );
    }
}

#[test]
fn a_module_that_is_not_there_is_named() {
    let folder = Folder::new(&Module::new("1.0.0"), "");
    std::fs::remove_file(folder.module()).unwrap();
    let output = folder.command().output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && complaint.contains("universal-waf.wasm"), "{complaint}");
}

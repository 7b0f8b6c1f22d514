//! Which plugins a host refuses, and with which messages.

use std::path::Path;

use hotslot_plugin::abi;

use crate::support::{Folder, PROMISED, Ran, describe, done, hotslot};

fn check(file: &Path, more: &[&str]) -> Ran {
    hotslot([&["check", file.to_str().expect("the path is UTF-8")], more].concat())
}

#[test]
fn what_fits_is_said_to() {
    let folder = Folder::new();
    let library = folder.c_fixture("fixture.so", "");
    let module = folder.described_module("fixture.wasm");
    let contract = folder.contract();
    for plugin in [&library, &module] {
        assert!(check(plugin, &[]).ok().contains("1.0.0"));
        for host in [&contract, &library, &module] {
            let said = check(plugin, &["--against", host.to_str().unwrap()]).ok();
            assert!(said.starts_with("ok: ") && said.contains("fits a host of `fixture` 1.0"), "{said}");
        }
    }
}

#[test]
fn a_library_that_a_host_refuses_is_refused_with_the_reason() {
    let folder = Folder::new();
    let library = folder.c_fixture("fixture.so", "");
    let sound = std::fs::read(&library).unwrap();
    let changed = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sound.clone();
        change(&mut bytes);
        folder.write(name, bytes)
    };
    let descriptor = sound.windows(abi::MAGIC.len()).position(|window| window == abi::MAGIC).unwrap();
    let panic = descriptor + std::mem::offset_of!(abi::Identity, panic);
    let aborting = changed("abort", &|bytes| bytes[panic] = abi::PANIC_ABORT as u8);
    for (file, reason) in [
        (&changed("cut", &|bytes| bytes.truncate(bytes.len() - 1)), "cut short"),
        (&changed("machine", &|bytes| bytes[18..20].copy_from_slice(&8_u16.to_le_bytes())), "and this process is"),
        (&changed("abi", &|bytes| bytes[descriptor + abi::MAGIC.len()] = 9), "speaks ABI 9"),
        (&folder.c_library("plain.so", "int answer;"), "exports no HOTSLOT_PLUGIN"),
        (&folder.write("text", "fn main() {}"), "no known format"),
        (&aborting, "panic=abort"),
    ] {
        let error = check(file, &[]).failed(1);
        assert!(error.contains(reason), "{error}");
    }
    check(&aborting, &["--allow-panic-abort"]).ok();
}

#[test]
fn a_module_that_a_host_refuses_is_refused_with_the_reason() {
    let folder = Folder::new();
    let contract = folder.contract();
    let lacking = folder.module("lacking.wasm", &PROMISED.replace("hotslot_invoke", "invoke"));
    describe(&lacking, &contract, &[]).ok();
    let stateless = folder.module("stateless.wasm", PROMISED);
    describe(&stateless, &contract, &["--schema", "count/1"]).ok();
    let asking = folder.module("asking.wasm", r#"(module (import "wasi" "read" (func)))"#);
    for (file, reason) in [
        (&lacking, "hotslot_invoke"),
        (&stateless, "hotslot_alloc"),
        (&asking, "wasi"),
        (&folder.module("greedy.wasm", "(module (memory 2000))"), "bytes of memory"),
        (&folder.write("invalid.wasm", b"\0asm\x01\0\0\0\x01\x01\x01"), "0x"),
    ] {
        let error = check(file, &[]).failed(1);
        assert!(error.contains(reason), "{error}");
    }
    let sound = folder.described_module("fixture.wasm");
    let error = check(&sound, &["--limit", "functions=4"]).failed(1);
    assert!(error.contains("functions") && error.contains('4'), "{error}");
    check(&sound, &["--limit", "functions=5", "--limit", "memory=65536"]).ok();
}

#[test]
fn what_does_not_fit_a_host_is_named() {
    let folder = Folder::new();
    let library = folder.c_fixture("fixture.so", "");
    let text = std::fs::read_to_string(folder.contract()).unwrap();
    for (from, to, reason) in [
        ("add(u64)", "add(u32)", "the method `add`"),
        ("method add", "method sum", "lacks the method `sum(u64)->u64`"),
        ("interface fixture 1.0", "interface fixture 2.0", "another major version"),
        ("interface fixture", "interface ledger", "takes `ledger`"),
    ] {
        assert!(text.contains(from), "{from}");
        let host = folder.write("host.txt", text.replace(from, to));
        let error = check(&library, &["--against", host.to_str().unwrap()]).failed(1);
        assert!(error.contains(reason), "{error}");
    }
    // A host may ask for more than a plugin has, if that is optional.
    let newer = folder.write("newer.txt", text.replace("1.0", "1.1") + "since 1.1 describe(u32)->String\n");
    check(&library, &["--against", newer.to_str().unwrap()]).ok();
    let raw = folder.module("raw.wasm", "(module)");
    let contract = folder.contract();
    let error = check(&raw, &["--against", contract.to_str().unwrap()]).failed(1);
    assert!(error.contains("carries no contract"), "{error}");
}

#[test]
fn a_type_that_changed_is_named_with_its_field() {
    let folder = Folder::new();
    let contract = |name: &str, quote: &str| {
        let text =
            format!("interface pricer 1.0\nmethod quote(&str)->Result<postcard:Vec<Quote{{{quote}}}>,CallError>\n");
        folder.write(name, text)
    };
    let (plugin, host) = (contract("plugin.txt", "ask:f64,bid:f64"), contract("host.txt", "ask:f64,bid:f64,size:u32"));
    let module = folder.module("pricer.wasm", PROMISED);
    describe(&module, &plugin, &[]).ok();
    check(&module, &["--against", plugin.to_str().unwrap()]).ok();
    for (host, reason) in [
        (&host, "Quote: the plugin lacks `size`, field 3, which the host has"),
        (&contract("swapped.txt", "bid:f64,ask:f64"), "Quote: the plugin has `ask` where the host has `bid`, field 1"),
        (
            &contract("wider.txt", "ask:f64,bid:f32"),
            "Quote: `bid`, field 2, is `f64` in the plugin and `f32` in the host",
        ),
    ] {
        let error = check(&module, &["--against", host.to_str().unwrap()]).failed(1);
        assert!(error.contains("`quote`") && error.contains(reason), "{error}");
    }
    // One from before types were described.
    let old = folder.write("old.txt", "interface pricer 1.0\nmethod quote(&str)->Vec<Quote>:postcard\n");
    let error = check(&module, &["--against", old.to_str().unwrap()]).failed(1);
    assert!(error.contains("does not say what the types in the method `quote`"), "{error}");
}

#[test]
fn a_wrong_command_line_is_another_matter_than_a_refusal() {
    let folder = Folder::new();
    let module = folder.described_module("fixture.wasm");
    let nothing = folder.write("nothing.txt", "interface \u{1b}[2J");
    let plain = folder.module("plain.wasm", "(module)");
    for more in [
        &["--against", "/nowhere"][..],
        &["--against", nothing.to_str().unwrap()],
        &["--against", plain.to_str().unwrap()],
        &["--limit", "patience=3"],
        &["--limit", "functions"],
        &["--limit", "functions=-1"],
        &["--no-such-option"],
    ] {
        check(&module, more).failed(2);
    }
    check(Path::new("/nowhere"), &[]).failed(2);
    hotslot(["no-such-command"]).failed(2);
}

#[test]
fn no_command_runs_any_code_of_a_plugin() {
    let folder = Folder::new();
    let mark = folder.path("it-ran");
    let constructor = format!(
        "\n#include <fcntl.h>\n#include <unistd.h>\n__attribute__((constructor)) static void mark(void) {{ \
         close(open(\"{}\", O_CREAT | O_WRONLY, 0600)); }}\n",
        mark.display()
    );
    let library = folder.c_fixture("fixture.so", &constructor);
    // A module whose first instruction would be the end of a command that ran it.
    let module = PROMISED.strip_suffix(')').expect("it is a module");
    let module = folder.module("fixture.wasm", &format!("{module} (func $trap unreachable) (start $trap))"));
    let contract = folder.contract();
    describe(&module, &contract, &[]).ok();
    let key = folder.path("alice");
    let text = |path: &Path| path.to_str().expect("the path is UTF-8").to_owned();
    hotslot(["keygen", &text(&key), "--no-password"]).ok();
    let (key, root) = (text(&key.with_extension("key")), text(&folder.path("root.json")));
    hotslot(["trust", "init", "--key", &key.replace(".key", ".pub"), "--out", &root]).ok();
    for plugin in [&library, &module].map(|path| text(path)) {
        hotslot(["inspect", &plugin]).ok();
        hotslot(["check", &plugin]).ok();
        hotslot(["check", &plugin, "--against", &text(&contract)]).ok();
        hotslot(["header", &plugin]).ok();
        hotslot(["sign", &plugin, "--key", &key, "--slot", "pricer"]).ok();
        hotslot(["verify", &plugin, "--root", &root, "--slot", "pricer"]).ok();
    }
    assert!(!mark.exists(), "the library's constructor ran");
    // It does run where the library is loaded.
    done(std::process::Command::new("true").env("LD_PRELOAD", &library));
    assert!(mark.exists(), "the constructor does nothing");
}

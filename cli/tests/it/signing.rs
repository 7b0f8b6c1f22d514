//! Keys, signatures and roots, as somebody who publishes uses them.

use std::path::Path;

use crate::support::{Folder, Ran, hotslot};

/// A folder with what the commands work on, named by strings.
struct Desk(Folder);

impl Desk {
    fn new() -> Self {
        let desk = Self(Folder::new());
        desk.0.write("plugin", b"the bytes of a plugin");
        desk.0.write("rules", b"the rules");
        desk
    }

    fn path(&self, name: &str) -> String {
        self.0.path(name).to_str().expect("the path is UTF-8").to_owned()
    }

    /// Runs a command; words that start with `@` are files of the desk.
    fn run(&self, command: &str) -> Ran {
        let words: Vec<String> = command
            .split(' ')
            .map(|word| match word.split_once('@') {
                Some((before, file)) => format!("{before}{}", self.path(file)),
                None => word.to_owned(),
            })
            .collect();
        hotslot(words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn key(&self, name: &str) {
        self.run(&format!("keygen @{name} --no-password")).ok();
    }
}

#[test]
fn a_plugin_is_signed_and_verified() {
    let desk = Desk::new();
    desk.key("alice");
    desk.run("trust init --key @alice.pub --out @root.json").ok();
    desk.run("sign @plugin --key @alice.key --slot rules --counter 7 --plugin-version 1.2.0 --interface waf/2").ok();
    let said = desk.run("verify @plugin --root @root.json --slot rules --interface waf/2").ok();
    assert!(
        said.starts_with("ok: ") && said.contains("plugin 1.2.0 for the slot rules, counter 7, signed by "),
        "{said}"
    );
    for (wrong, reason) in [
        ("verify @plugin --root @root.json --slot prices", r#"signed for the slot "rules", but this is "prices""#),
        ("verify @plugin --root @root.json --slot rules --interface waf/3", "signed for the interface"),
    ] {
        let error = desk.run(wrong).failed(1);
        assert!(error.contains(reason), "{error}");
    }
    desk.0.write("plugin", b"the bytes of another");
    let error = desk.run("verify @plugin --root @root.json --slot rules").failed(1);
    assert!(error.contains("it was changed"), "{error}");
}

/// Hosts that follow it would follow the new one no further.
#[test]
fn a_root_is_not_begun_anew_over_one_that_is_there() {
    let desk = Desk::new();
    desk.key("alice");
    desk.run("trust init --key @alice.pub --out @root.json").ok();
    let error = desk.run("trust init --key @alice.pub --out @root.json").failed(2);
    assert!(error.contains("there is one already") && error.contains("trust rotate"), "{error}");
}

#[test]
fn a_signature_does_not_revoke_what_it_is_for() {
    let desk = Desk::new();
    desk.key("alice");
    let error = desk.run("sign @plugin --key @alice.key --slot rules --counter 7 --min-counter 8").failed(2);
    assert!(error.contains("would revoke this one itself"), "{error}");
    desk.run("sign @plugin --key @alice.key --slot rules --counter 7 --min-counter 7").ok();
}

#[test]
fn two_of_three_sign_and_what_they_sign_is_tied_together() {
    let desk = Desk::new();
    for name in ["alice", "bob", "carol"] {
        desk.key(name);
    }
    desk.run("trust init --key @alice.pub --key @bob.pub --key @carol.pub --out @one.json").ok();
    let said = desk.run("trust rotate @one.json --threshold release=2 --key @alice.key --out @two.json").ok();
    assert!(said.contains("root 2") && said.contains("release: 2 of "), "{said}");
    assert!(desk.run("trust follow @one.json @two.json").ok().starts_with("ok: root 2"));

    desk.run("sign @plugin --key @alice.key --slot rules --rules @rules --expires 90d").ok();
    let error = desk.run("verify @plugin --root @two.json --slot rules --rules @rules").failed(1);
    assert!(error.contains("1 of 2 keys that may sign this have"), "{error}");
    desk.0.write("other.manifest", std::fs::read(desk.path("one.json")).unwrap());
    desk.0.write("other.manifest.minisig", "");
    desk.0.write("other", "anything");
    let error = desk.run("sign @other --key @bob.key --add").failed(1);
    assert!(error.contains("not a manifest"), "{error}");
    desk.run("sign @plugin --key @bob.key --add").ok();
    desk.run("verify @plugin --root @two.json --slot rules --rules @rules").ok();
    let error = desk.run("verify @plugin --root @two.json --slot rules").failed(1);
    assert!(error.contains("the rules has the digest") || error.contains("rules"), "{error}");

    // Bob's key was stolen.
    desk.run("trust rotate @two.json --remove @bob.pub --key @alice.key --out @three.json").ok();
    let error = desk.run("verify @plugin --root @three.json --slot rules --rules @rules").failed(1);
    assert!(error.contains("1 of 2 keys"), "{error}");
    let error = desk.run("trust follow @one.json @three.json").failed(1);
    assert!(error.contains("give every root in between"), "{error}");
    let error = desk.run("trust rotate @three.json --remove @bob.pub --key @alice.key --out @four.json").failed(2);
    assert!(error.contains("has no key"), "{error}");
}

#[test]
fn a_server_gets_a_key_for_rules_only() {
    let desk = Desk::new();
    desk.key("alice");
    desk.key("server");
    desk.run("trust init --key @alice.pub --out @one.json").ok();
    desk.run("trust rotate @one.json --add @server.pub=rules --key @alice.key --out @two.json").ok();
    desk.run("sign @rules --key @server.key --slot rules --subject rules").ok();
    desk.run("verify @rules --root @two.json --slot rules --subject rules").ok();
    let error = desk.run("verify @rules --root @two.json --slot rules").failed(1);
    assert!(error.contains("signed as Rules, but Plugin was expected"), "{error}");
    desk.run("sign @plugin --key @server.key --slot rules").ok();
    let error = desk.run("verify @plugin --root @two.json --slot rules").failed(1);
    assert!(error.contains("keys with the role Release of root 2"), "{error}");
    let error = desk.run("trust rotate @two.json --add @server.pub --key @server.key --out @three.json").failed(2);
    assert!(error.contains("0 of 1 keys of root 2 have signed"), "{error}");
    assert!(!Path::new(&desk.path("three.json")).exists(), "nothing is written that no host would follow");
}

#[test]
fn keys_are_never_overwritten_and_can_have_a_password() {
    let desk = Desk::new();
    desk.0.write("password", b"correct horse\n");
    desk.0.write("wrong", b"battery staple\n");
    desk.run("keygen @alice --password-file @password").ok();
    let error = desk.run("keygen @alice --no-password").failed(2);
    assert!(error.contains("exists"), "{error}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(desk.path("alice.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    desk.run("sign @plugin --key @alice.key --slot rules --password-file @password").ok();
    let error = desk.run("sign @plugin --key @alice.key --slot rules --password-file @wrong").failed(2);
    assert!(error.contains("alice.key"), "{error}");
    let error = desk.run("sign @plugin --key @password --slot rules --no-password").failed(2);
    assert!(error.contains("password: "), "{error}");
}

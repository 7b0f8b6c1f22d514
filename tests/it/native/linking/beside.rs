//! Row 53: libraries that are sound alone, and not beside each other.

use std::process::Command;

use super::super::fixtures::TemporaryFolder;
use super::super::rehearsal::{refused, reload};
use super::{build, build_at, compiled};

/// Ends the process when a name is entered twice, as registries in shared libraries do.
const REGISTRY: &str = r#"
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    static char known[64];
    void enter(const char *name) {
        if (strcmp(known, name) == 0) { puts("entered twice"); fflush(stdout); abort(); }
        strncpy(known, name, sizeof known - 1);
    }
"#;

/// A plugin that enters a name when it is loaded.
fn plugin(folder: &TemporaryFolder, name: &str, answer: u32) -> Vec<u8> {
    let text = format!(
        r#"
        void enter(const char *name);
        __attribute__((constructor)) static void begin(void) {{ enter("{name}"); }}
        int answer(void) {{ return {answer}; }}
        "#
    );
    let path = folder.path().to_str().unwrap();
    let flags = [&*format!("-L{path}"), "-lregistry", &format!("-Wl,-rpath,{path}")];
    build("cc", &text, &flags).expect("a C compiler is needed")
}

/// Row 53.
#[test]
fn row_53_a_library_is_rehearsed_beside_what_it_meets() {
    let folder = TemporaryFolder::new();
    build_at(&folder.path().join("libregistry.so"), "cc", REGISTRY, &[]).expect("a C compiler is needed");
    let first = plugin(&folder, "order", 1);
    let end = reload("raw", &first, &plugin(&folder, "order", 2), &[]);
    refused(&end, &["SIGABRT", "entered twice", "the plugin would have done that to the host"]);

    let end = reload("raw", &first, &plugin(&folder, "another", 2), &[]);
    assert!(end.status.success() && end.output.contains("serving: 2\n"), "{}", end.output);
}

/// What is mapped and shares nothing with the new one is not in the way.
#[test]
fn row_53_a_library_is_not_rehearsed_beside_what_it_does_not_meet() {
    let folder = TemporaryFolder::new();
    build_at(&folder.path().join("libregistry.so"), "cc", REGISTRY, &[]).expect("a C compiler is needed");
    let alone = super::answering(2, &[]);
    let end = reload("raw", &plugin(&folder, "order", 1), &alone, &[]);
    assert!(end.status.success() && end.output.contains("serving: 2\n"), "{}", end.output);
    let end = reload("raw", &alone, &plugin(&folder, "order", 1), &[]);
    assert!(end.status.success() && end.output.contains("serving: 1\n"), "{}", end.output);
}

/// Row 53: each generation comes with a library of its own, and those share one. What the files are called does not matter.
#[test]
fn row_53_a_library_is_rehearsed_beside_what_it_meets_through_others() {
    let folder = TemporaryFolder::new();
    let path = folder.path().to_str().unwrap();
    build_at(&folder.path().join("libregistry.so"), "cc", REGISTRY, &[]).expect("a C compiler is needed");
    let flags = [&*format!("-L{path}"), "-lregistry", &format!("-Wl,-rpath,{path}")];
    let plugin = |version: u32, name: &str, flags: &[&str]| {
        let text = format!(
            r#"
            void enter(const char *name);
            void messages{version}(void) {{ enter("{name}"); }}
            "#
        );
        build_at(&folder.path().join(format!("libmessages{version}.so")), "cc", &text, flags).unwrap();
        let text = format!(
            r#"
            void messages{version}(void);
            __attribute__((constructor)) static void begin(void) {{ messages{version}(); }}
            int answer(void) {{ return {version}; }}
            "#
        );
        let link = [&*format!("-L{path}"), &format!("-lmessages{version}"), &format!("-Wl,-rpath,{path}")];
        build("cc", &text, &[&link[..], &[&format!("-Wl,-rpath-link,{path}")]].concat()).unwrap()
    };
    let first = plugin(1, "order", &flags);
    let end = reload("raw", &first, &plugin(2, "order", &flags), &[]);
    refused(&end, &["SIGABRT", "entered twice", "the plugin would have done that to the host"]);
    let end = reload("raw", &first, &plugin(3, "another", &flags), &[]);
    assert!(end.status.success() && end.output.contains("serving: 3\n"), "{}", end.output);

    // By its path, and not by its name.
    let by_path = folder.path().join("libregistry.so");
    let named = [by_path.to_str().unwrap()];
    let end = reload("raw", &first, &plugin(4, "order", &named), &[]);
    refused(&end, &["SIGABRT", "entered twice", "the plugin would have done that to the host"]);
}

/// Plugins with a message that protoc generated, linked with the system's libprotobuf.
struct Protobuf(TemporaryFolder);

impl Protobuf {
    /// `None`, with a printed line, if it is not installed.
    fn new() -> Option<Protobuf> {
        let includes = ["-E", "-x", "c++", "-include", "google/protobuf/message.h", "/dev/null"];
        match Command::new("g++").args(includes).output() {
            Ok(output) if output.status.success() => {}
            _ => {
                println!("skipped: no g++, or no headers of protobuf (apt-get install libprotobuf-dev)");
                return None;
            }
        }
        Some(Protobuf(TemporaryFolder::new()))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("the temporary folder has a plain name").to_owned()
    }

    /// Generates and compiles the code of a message, in a file of this name.
    fn generate(&self, name: &str, message: &str, flags: &[&str]) -> Option<String> {
        std::fs::write(self.path(&format!("{name}.proto")), message).unwrap();
        let folder = self.path("");
        compiled("protoc", ["-I", &folder, &format!("--cpp_out={folder}"), &format!("{folder}{name}.proto")])?;
        let (source, object) = (self.path(&format!("{name}.pb.cc")), self.path(&format!("{name}.o")));
        let arguments = ["-c", "-fPIC", "-I", &folder, "-o", &object, &source];
        compiled("g++", arguments.into_iter().chain(flags.iter().copied()))?;
        Some(object)
    }

    fn plugin(&self, name: &str, object: &str, revision: u32, library: &str, flags: &[&str]) -> Option<Vec<u8>> {
        let text = ORDERS.replace("order.pb.h", &format!("{name}.pb.h"));
        let include = format!("-I{}", self.path(""));
        let revision = format!("-DREV={revision}");
        build("g++", &text, &[&[&*include, &revision, object, library, "-pthread"], flags].concat())
    }
}

const ORDER: &str = include_str!("../../../fixtures/order.proto");
const ORDERS: &str = include_str!("../../../fixtures/orders.cpp");

/// Row 53 with protobuf itself (protocolbuffers/protobuf#4126): its registry is in libprotobuf, which both generations share, and
/// ends the process when a file is entered that it has. Without the registry, or under another name, they serve.
#[test]
fn row_53_a_message_of_protobuf_that_is_registered_twice_is_refused_and_the_host_lives() {
    let Some(protobuf) = Protobuf::new() else { return };
    // Headers of some versions bring variables that would be unified.
    let own = ["-fno-gnu-unique"];
    let Some(object) = protobuf.generate("order", ORDER, &own) else { return };
    let plugin = |revision| protobuf.plugin("order", &object, revision, "-lprotobuf", &own).unwrap();
    let first = plugin(1);
    let patient = ["loading=60000"];
    let end = reload("raw", &first, &plugin(2), &patient);
    assert!(end.status.success(), "the host died: {}: {}", end.status, end.output);
    let line = end.output.lines().find_map(|line| line.strip_prefix("refused: refused at load: "));
    let line = line.unwrap_or_else(|| panic!("it was not refused: {}", end.output));
    println!("{line}");
    assert!(line.contains("order.proto") && line.contains("the plugin would have done that to the host"), "{line}");
    assert!(end.output.contains("serving: 1000\n"), "{}", end.output);

    // The same message in a file, and a package, of another name.
    let renamed = ORDER.replace("message", "package second;\nmessage");
    let object = protobuf.generate("order2", &renamed, &own).unwrap();
    let text = ORDERS.replace("Order o", "second::Order o").replace("order.pb.h", "order2.pb.h");
    let include = format!("-I{}", protobuf.path(""));
    let second = build("g++", &text, &[&include, "-DREV=2", &object, "-lprotobuf", "-pthread", own[0]]).unwrap();
    let end = reload("raw", &first, &second, &patient);
    assert!(end.status.success() && end.output.contains("serving: 2000\n"), "{}", end.output);

    // Code that enters nothing.
    let lite = ORDER.replace("message", "option optimize_for = LITE_RUNTIME;\nmessage");
    let object = protobuf.generate("lite", &lite, &own).unwrap();
    let plugin = |revision| protobuf.plugin("lite", &object, revision, "-lprotobuf-lite", &own).unwrap();
    let end = reload("raw", &plugin(1), &plugin(2), &patient);
    assert!(end.status.success() && end.output.contains("serving: 2000\n"), "{}", end.output);
}

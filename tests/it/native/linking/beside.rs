//! Row 53: libraries that are sound alone, and not beside each other.

use super::super::fixtures::TemporaryFolder;
use super::super::rehearsal::{refused, reload};
use super::{build, build_at};

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

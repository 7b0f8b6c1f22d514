//! The pass over every library of the system: nothing panics, and nothing that is ordinary is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hotslot::native::{ImageError, LinkError};
use hotslot::{BoxError, escape_untrusted};

use super::super::process::alone;
use super::{answers, build};
use crate::support::admit;

/// Row 57 and row 59.
#[test]
fn row_57_and_59_the_libraries_of_the_system_are_refused_only_for_what_they_are() {
    alone(|| {
        let mut reasons: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        let backend = answers();
        let mut all = Vec::new();
        find(Path::new("/usr/lib"), &mut all);
        for path in &all {
            let Ok(bytes) = std::fs::read(path) else { continue };
            let verdict = admit(&backend, &bytes);
            let _ = hotslot::inspect(&bytes);
            let reason = verdict.map_or_else(|error| reason(&error), |_| ADMITTED.to_owned());
            reasons.entry(reason).or_default().push(path.clone());
        }
        for (reason, paths) in &reasons {
            println!("{:5} {reason}, for instance {}", paths.len(), paths[0].display());
        }
        let expected =
            [ADMITTED, "another format", "another machine", "never loads", "unique symbols", "effects", "static TLS"];
        let unexpected = reasons.keys().filter(|reason| !expected.iter().any(|it| reason.starts_with(it)));
        assert_eq!(unexpected.collect::<Vec<_>>(), Vec::<&String>::new());
        assert!(reasons.contains_key(ADMITTED), "{reasons:?}");
    });
}

/// Every library that this process runs on could come into a slot.
#[test]
fn row_57_and_59_the_libraries_of_this_process_are_admitted() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let paths: BTreeSet<&str> = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).collect();
    let libraries = paths.iter().filter(|path| path.starts_with('/') && path.contains(".so"));
    for path in libraries.filter(|path| Path::new(path).exists()) {
        let verdict = admit(&answers(), std::fs::read(path).unwrap());
        assert!(verdict.is_ok(), "{path}: {verdict:?}");
    }
}

/// Whatever is wrong with headers, symbols or relocations, the answer is a verdict.
#[test]
fn row_57_and_59_no_damaged_byte_makes_the_pass_panic() {
    let text = "#include <stdio.h>\n__thread int it __attribute__((tls_model(\"initial-exec\"))); int table[4] = {1};\n\
                int answer(void) { puts(\"\"); return it + table[0]; }";
    let whole =
        build("cc", text, &["-Wl,-z,noseparate-code", "-Wl,-soname,it.so", "-Wl,-rpath,/nowhere", "-s"]).unwrap();
    let mut damaged = whole.clone();
    for at in 0..whole.len() {
        for value in [0, 0x7f, 0xff] {
            damaged[at] = value;
            let _ = admit(&answers(), &damaged);
        }
        damaged[at] = whole[at];
    }
}

const ADMITTED: &str = "admitted";

/// Names the kind of a refusal.
fn reason(error: &BoxError) -> String {
    let image = |error: &ImageError| match error {
        ImageError::NeverLoads { found, .. } => {
            let (found, _) = found.split_once(" that stands for").unwrap_or((found, ""));
            format!("never loads: {found}")
        }
        ImageError::WrongMachine { .. } => "another machine".to_owned(),
        ImageError::WrongFormat { found, .. } => format!("another format: {found}"),
        other => escape_untrusted(&other.to_string()).into_owned(),
    };
    let link = |error: &LinkError| match error {
        LinkError::UniqueSymbols { .. } => "unique symbols".to_owned(),
        LinkError::ProcessEffects { effects } => format!("effects: {effects:?}"),
        LinkError::StaticTls { .. } => "static TLS".to_owned(),
        other => other.to_string(),
    };
    let known = error.downcast_ref().map(image).or_else(|| error.downcast_ref().map(link));
    known.unwrap_or_else(|| error.to_string())
}

/// All files that are named like shared libraries, links left out.
fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        if kind.is_dir() {
            find(&path, found);
        } else if kind.is_file() && entry.file_name().to_string_lossy().contains(".so") {
            found.push(path);
        }
    }
}

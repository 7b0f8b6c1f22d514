//! Certificates that sign themselves.

use std::path::Path;
use std::process::{Command, Stdio};

/// Makes a certificate for some names, in `FILE.pem` and `FILE.key`; says so where there is no openssl.
pub fn certificate(folder: &Path, file: &str, names: &str) -> bool {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", &format!("/CN={file}")])
        .args(["-addext", &format!("subjectAltName={names}"), "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &format!("{file}.key"), "-out", &format!("{file}.pem")])
        .current_dir(folder)
        .stderr(Stdio::null())
        .status();
    let made = made.is_ok_and(|status| status.success());
    if !made {
        println!("skipped: there is no openssl");
    }
    made
}

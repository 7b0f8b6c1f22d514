//! `cargo hotslot header`: generates a C header from an interface, for plugins in C that are built as libraries.
//!
//! The ABI is `template/abi.h`, the same for every interface; the rest is generated from the contract.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use hotslot::host::Contract;

use crate::Outcome;
use crate::files::contract;

#[derive(Args)]
pub(crate) struct Header {
    /// The interface: a contract file, or a plugin with a contract
    file: PathBuf,
}

const ABI: &str = include_str!("../template/abi.h");
const INTERFACE: &str = include_str!("../template/interface.h");

impl Header {
    pub(crate) fn run(&self) -> Outcome {
        Ok(header(&contract(&self.file)?))
    }
}

fn header(contract: &Contract) -> String {
    let prefix = upper(&contract.name);
    let mut numbers = String::new();
    let mut used = HashSet::new();
    for (number, method) in contract.methods.iter().enumerate() {
        let mut name = upper(&method.name);
        if !used.insert(name.clone()) {
            // Names that differ in Rust can be the same in upper case.
            name = format!("{name}_{number}");
            used.insert(name.clone());
        }
        let comment = method.to_string().replace("*/", "* /");
        let _ = writeln!(numbers, "    {prefix}_{name} = {number}, /* {comment} */");
    }
    let text: String = contract.to_string().lines().map(|line| format!(" \\\n    {}", literal(line))).collect();
    let interface = INTERFACE
        .replace("{{prefix}}", &prefix)
        .replace("{{methods}}", &numbers)
        .replace("{{name}}", &contract.name)
        .replace("{{version}}", &format!("{}.{}", contract.version.0, contract.version.1))
        .replace("{{id}}", &contract.id())
        .replace("{{contract}}", &text);
    format!("{ABI}\n{interface}")
}

/// Converts a name to the style of C constants.
fn upper(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Converts a line to a C string literal. Question marks are escaped because two of them begin a trigraph.
fn literal(line: &str) -> String {
    let mut text = String::from("\"");
    for byte in line.bytes() {
        match byte {
            b'"' | b'\\' | b'?' => text.extend(['\\', char::from(byte)]),
            0x20..0x7f => text.push(char::from(byte)),
            _ => drop(write!(text, "\\{byte:03o}")),
        }
    }
    text + "\\n\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_c_cannot_say_is_said_otherwise() {
        assert_eq!(literal("a??(\"é\")"), r#""a\?\?(\"\303\251\")\n""#);
        let text = "interface tid-bits 1.0\nmethod a_b()->()\nmethod A_b()->()\nmethod é()->()\n";
        let text = header(&Contract::parse(text.as_bytes()).expect("it is a contract"));
        for name in ["TID_BITS_A_B = 0,", "TID_BITS_A_B_1 = 1,", "TID_BITS__ = 2,"] {
            assert!(text.contains(name), "{name} is not in:\n{text}");
        }
    }
}

//! `cargo hotslot inspect`: prints a plugin's metadata.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use hotslot::{Digest, Inspection, Linkage, escape_untrusted};
use serde_json::json;

use crate::files::{read, refused};
use crate::{Failure, Outcome};

#[derive(Args)]
pub(crate) struct Inspect {
    /// A library (ELF, Mach-O, PE) or a WebAssembly module, for any platform
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print only the contract, in the form that `check --against`, `header` and `describe` read
    #[arg(long, conflicts_with = "json")]
    contract: bool,
}

impl Inspect {
    pub(crate) fn run(&self) -> Outcome {
        let bytes = read(&self.file)?;
        let found = hotslot::inspect(&bytes).map_err(|error| refused(&self.file, &error))?;
        if self.contract {
            let contract = found.manifest.and_then(|manifest| manifest.contract);
            let contract = contract.ok_or_else(|| Failure::Refused("the plugin has no contract".to_owned()))?;
            return Ok(contract.to_string());
        }
        Ok(if self.json { as_json(&found, &bytes) } else { as_text(&found, &bytes) })
    }
}

fn as_json(found: &Inspection, bytes: &[u8]) -> String {
    let contract = found.manifest.as_ref().and_then(|manifest| manifest.contract.as_deref());
    let shown = json!({
        "format": found.format,
        "architecture": found.architecture,
        "size": bytes.len(),
        "digest": Digest::of(bytes).to_string(),
        "manifest": found.manifest,
        "contract": contract,
        "linkage": found.linkage.as_ref().map(linkage_as_json),
        "imports": found.imports,
        "exports": found.exports,
    });
    format!("{shown:#}\n")
}

/// What holds for the file wherever it is loaded: what it would meet in this process says nothing about a host.
fn linkage_as_json(linkage: &Linkage) -> serde_json::Value {
    json!({
        "soname": linkage.soname,
        "needed": direct(linkage).collect::<Vec<_>>(),
        "search_path": linkage.search_path,
        "unique_symbols": linkage.unique_symbols,
        "static_tls": linkage.static_tls,
        "effects": linkage.effects,
        "protections": linkage.protections,
        "remarks": linkage.remarks,
    })
}

/// The libraries that the file itself names.
fn direct(linkage: &Linkage) -> impl Iterator<Item = &String> {
    linkage.needed.iter().filter(|library| library.needed_by.is_none()).map(|library| &library.name)
}

/// The same, a line each.
fn linkage_lines(linkage: &Linkage) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    lines.extend(linkage.soname.iter().map(|name| ("soname", name.clone())));
    lines.extend(direct(linkage).map(|name| ("needs", name.clone())));
    lines.extend(linkage.search_path.iter().map(|folder| ("searches", folder.clone())));
    lines.extend(linkage.unique_symbols.iter().map(|symbol| ("unified", symbol.clone())));
    if linkage.static_tls > 0 {
        lines.push(("static TLS", format!("{} bytes", linkage.static_tls)));
    }
    lines.extend(linkage.effects.iter().map(|effect| ("effect", format!("it {effect}"))));
    lines.extend(linkage.protections.iter().map(|protection| ("protection", protection.to_string())));
    lines.extend(linkage.remarks.iter().map(|remark| ("remark", remark.clone())));
    lines
}

fn as_text(found: &Inspection, bytes: &[u8]) -> String {
    let mut lines = vec![
        ("format", format!("{}, {}", found.format, found.architecture)),
        ("size", format!("{} bytes", bytes.len())),
        ("digest", Digest::of(bytes).to_string()),
    ];
    if let Some(manifest) = &found.manifest {
        let absent = || "-".to_owned();
        let version = manifest.version.as_ref().map_or_else(absent, ToString::to_string);
        lines.push(("name", manifest.name.clone()));
        lines.push(("version", version));
        lines.push(("interface", manifest.interface.clone().unwrap_or_else(absent)));
        lines.push(("schema", manifest.schema.clone().unwrap_or_else(absent)));
        match &manifest.contract {
            Some(contract) => lines.extend(contract.methods.iter().map(|method| ("method", method.to_string()))),
            None => lines.push(("contract", absent())),
        }
    } else {
        lines.push(("plugin", "no: the file has no manifest".to_owned()));
    }
    lines.extend(found.linkage.iter().flat_map(linkage_lines));
    lines.extend(found.imports.iter().map(|import| ("import", import.clone())));
    lines.extend(found.exports.iter().map(|export| ("export", export.clone())));
    let mut text = String::new();
    for (what, value) in lines {
        let _ = writeln!(text, "{what:<10} {}", escape_untrusted(&value));
    }
    text
}

//! `cargo hotslot describe`: adds the three custom sections that a host reads to a module whose compiler writes none.

use std::path::PathBuf;

use clap::Args;
use hotslot::Format;
use hotslot::host::Contract;

use crate::files::{contract, read, reason, refused, shown, write};
use crate::{Failure, Outcome};

#[derive(Args)]
pub(crate) struct Describe {
    /// The module; overwritten unless --output is given
    file: PathBuf,
    /// The interface that the module implements: a contract file, or a plugin with a contract
    #[arg(long, value_name = "FILE")]
    contract: PathBuf,
    /// The plugin's name
    #[arg(long)]
    name: String,
    /// The plugin's version
    #[arg(long)]
    version: String,
    /// The schema of the state that the plugin saves, if it saves any
    #[arg(long)]
    schema: Option<String>,
    /// Write the result to this file instead
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Describe {
    pub(crate) fn run(&self) -> Outcome {
        let contract = contract(&self.contract)?;
        let mut module = read(&self.file)?;
        if !Format::of(&module).is_wasm() {
            let text =
                format!("{} is not a WebAssembly module; libraries have a descriptor instead", shown(&self.file));
            return Err(Failure::Misuse(text));
        }
        let found = hotslot::inspect(&module).map_err(|error| refused(&self.file, &error))?;
        if found.manifest.is_some() {
            return Err(Failure::Refused(format!("{} already has a manifest", shown(&self.file))));
        }
        module.extend(section("version", &self.version));
        module.extend(section("hotslot.manifest", &self.manifest(&contract)));
        module.extend(section("hotslot.contract", &contract.to_string()));
        hotslot::inspect(&module).map_err(|error| Failure::Misuse(reason(&*error)))?;
        let output = self.output.as_deref().unwrap_or(&self.file);
        write(output, &module)?;
        Ok(format!("described: {} is {} {} of {}\n", shown(output), self.name, self.version, contract.id()))
    }

    fn manifest(&self, contract: &Contract) -> String {
        let manifest = format!("name={}\ninterface={}", self.name, contract.id());
        match &self.schema {
            Some(schema) => format!("{manifest}\nschema={schema}"),
            None => manifest,
        }
    }
}

/// Encodes a custom section.
fn section(name: &str, text: &str) -> Vec<u8> {
    let mut body = leb128(name.len());
    body.extend(name.as_bytes());
    body.extend(text.as_bytes());
    let mut section = vec![0];
    section.extend(leb128(body.len()));
    section.extend(body);
    section
}

/// Encodes a number as the format does: seven bits a byte, lowest first.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

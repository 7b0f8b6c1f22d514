//! `cargo hotslot`: inspects plugin files, checks whether a host would accept them, and creates new plugins.
//!
//! It also makes keys, and signs and verifies what they sign.
//!
//! No command runs any plugin code. Whether a host would refuse a plugin is decided by the library's own admission,
//! never by a second implementation.

mod check;
mod describe;
mod files;
mod header;
mod inspect;
mod keygen;
mod new;
mod pull;
mod push;
mod remote;
mod sign;
mod trust;
mod verify;

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo-hotslot", bin_name = "cargo hotslot", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints a plugin's metadata: format, digest, version, contract
    Inspect(inspect::Inspect),
    /// Checks whether a host on this machine would accept a plugin, and says why not
    Check(check::Check),
    /// Creates a workspace with an interface, a plugin and a host
    New(new::New),
    /// Generates a C header for plugins of an interface
    Header(header::Header),
    /// Adds to a WebAssembly module the metadata that `export!` adds to a plugin in Rust
    Describe(describe::Describe),
    /// Makes a key pair that signs plugins
    Keygen(keygen::Keygen),
    /// Signs a plugin: writes its manifest and the signatures over it
    Sign(sign::Sign),
    /// Verifies a plugin against its manifest, its signatures and a root
    Verify(verify::Verify),
    /// Puts a signed plugin where others fetch it: a fleet's orchestrator, an OCI registry, an S3 store
    Push(push::Push),
    /// Fetches a plugin from there, with its manifest and its signatures
    Pull(pull::Pull),
    /// Makes and follows the document that says which keys count
    Trust(trust::Trust),
}

/// Why a command failed.
enum Failure {
    /// The plugin is at fault: exit code 1.
    Refused(String),
    /// The command line or an input file is: exit code 2.
    Misuse(String),
}

/// What a command prints on success.
type Outcome = Result<String, Failure>;

fn main() -> ExitCode {
    let outcome = match Cli::parse_from(arguments()).command {
        Command::Inspect(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::New(command) => command.run(),
        Command::Header(command) => command.run(),
        Command::Describe(command) => command.run(),
        Command::Keygen(command) => command.run(),
        Command::Sign(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Push(command) => command.run(),
        Command::Pull(command) => command.run(),
        Command::Trust(command) => command.run(),
    };
    let (status, text) = match outcome {
        Ok(text) => {
            let mut out = std::io::stdout();
            match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                // A reader that stops early, such as `head`, is not an error.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    (2, format!("the output cannot be written: {error}"))
                }
                _ => return ExitCode::SUCCESS,
            }
        }
        Err(Failure::Refused(text)) => (1, text),
        Err(Failure::Misuse(text)) => (2, text),
    };
    eprintln!("error: {text}");
    ExitCode::from(status)
}

/// Returns the arguments without the one that cargo adds: `cargo hotslot inspect` runs `cargo-hotslot hotslot inspect`.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == "hotslot") {
        arguments.remove(1);
    }
    arguments
}

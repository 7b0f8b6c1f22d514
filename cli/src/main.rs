//! `cargo hotslot`: what is in a plugin's file, whether a host would take it, and how a new one begins.
//!
//! Nothing here runs a plugin. What a host refuses is decided by the library's own admission, never by a second opinion.

mod check;
mod describe;
mod files;
mod header;
mod inspect;
mod new;

use std::ffi::OsString;
use std::io::Write as _;
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
    /// Shows what a plugin's file says of itself
    Inspect(inspect::Inspect),
    /// Says whether a host on this machine would take a plugin, and if not, why
    Check(check::Check),
    /// Makes a folder with an interface, a plugin and a host
    New(new::New),
    /// Writes a C header for plugins of an interface
    Header(header::Header),
    /// Writes into a WebAssembly module what a plugin in Rust says by itself
    Describe(describe::Describe),
}

/// Why a command did not do what it was asked.
enum Failure {
    /// The plugin is at fault.
    Refused(String),
    /// The command line is.
    Misuse(String),
}

/// What a command prints, or why it does not.
type Outcome = Result<String, Failure>;

fn main() -> ExitCode {
    let outcome = match Cli::parse_from(arguments()).command {
        Command::Inspect(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::New(command) => command.run(),
        Command::Header(command) => command.run(),
        Command::Describe(command) => command.run(),
    };
    let (status, text) = match outcome {
        Ok(text) => {
            // Whoever does not read on, as `head` does not, has what it wants.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(Failure::Refused(text)) => (1, text),
        Err(Failure::Misuse(text)) => (2, text),
    };
    eprintln!("error: {text}");
    ExitCode::from(status)
}

/// Cargo passes the name of the command on: `cargo hotslot inspect` is `cargo-hotslot hotslot inspect`.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == "hotslot") {
        arguments.remove(1);
    }
    arguments
}

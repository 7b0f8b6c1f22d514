//! Detection and false positives of the WAF's rules, per family, over a corpus of labelled requests.
//!
//! A corpus is a file with one JSON object a line: `id`, `family`, `method`, `uri`, `headers`, `body` (text or null), and
//! `attack`: whether a rule of that family must match. `family` may be missing where `attack` is false; then none may.

mod corpus;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use universal_waf::{Config, Rules};

use crate::corpus::Sample;
use crate::table::Table;

/// Measures the WAF's rules against labelled requests.
#[derive(Parser)]
struct Options {
    /// Files with one labelled request a line.
    #[arg(required = true)]
    corpora: Vec<PathBuf>,
    /// The rule file to measure with; without it, all built-in rules as they are.
    #[arg(long)]
    config: Option<PathBuf>,
    /// List the attacks that were missed and the harmless requests that were not, with the reason.
    #[arg(long)]
    misses: bool,
    /// Only the requests on even or odd lines, counted from 0: one half to develop on, one to look at when done.
    #[arg(long)]
    half: Option<Half>,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Half {
    Even,
    Odd,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let waf = match &options.config {
        Some(path) => {
            let json = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let build = |config: Config| Rules::new(&config);
            Config::parse(&json).and_then(build).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => Rules::default(),
    };
    let mut table = Table::default();
    for path in &options.corpora {
        for (line, sample) in Sample::read(path)?.into_iter().enumerate() {
            let half = if line % 2 == 0 { Half::Even } else { Half::Odd };
            if options.half.is_some_and(|wanted| wanted != half) {
                continue;
            }
            let outcome = sample.judge(&waf)?;
            if options.misses && outcome.flagged != sample.attack {
                println!("{}", sample.describe(&outcome));
            }
            table.add(&sample, &outcome);
        }
    }
    print!("{table}");
    Ok(())
}

#[cfg(test)]
#[test]
fn nothing_harmless_is_flagged() {
    let waf = Rules::default();
    for sample in Sample::read(concat!(env!("CARGO_MANIFEST_DIR"), "/benign.jsonl").as_ref()).unwrap() {
        let outcome = sample.judge(&waf).unwrap();
        assert!(!outcome.flagged, "{}", sample.describe(&outcome));
    }
}

//! Detection and false positives of the WAF's rules, per family, over a corpus of labelled requests.
//!
//! A corpus is a file with one JSON object a line: `id`, `family`, `method`, `uri`, `headers`, `body` (text or null), and
//! `attack`: whether a rule of that family must match. `family` may be missing where `attack` is false; then none may. It can be
//! any name: where the built-in rules have no such family, any rule counts.
//!
//! With `--engine`, plugins are loaded as a node loads them, and compared on the same requests.

mod compared;
mod corpus;
mod engine;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use universal_waf::{Config, Rules};

use crate::compared::{Column, Comparison};
use crate::corpus::Sample;
use crate::engine::Engine;
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
    /// Compare plugins, each with its rules, modules or libraries: can be given several times.
    #[arg(long, num_args = 3, value_names = ["NAME", "PLUGIN", "RULES"], conflicts_with_all = ["config", "misses"])]
    engine: Vec<PathBuf>,
    /// Write the comparison into this file, in the place of the one that it has.
    #[arg(long, value_name = "FILE", requires = "engine")]
    write: Option<PathBuf>,
    /// How many MiB of memory an instance of a module may have.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096), requires = "engine")]
    memory: u16,
    /// How often each request is put to each engine for its time.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Half {
    Even,
    Odd,
}

fn main() -> ExitCode {
    // Libraries are first loaded by a child of this program, which does not get past this line.
    hotslot::native::rehearsal_point();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    if !options.engine.is_empty() {
        return compare(options);
    }
    let waf = match &options.config {
        Some(path) => {
            let json = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let build = |config: Config| Rules::new(&config);
            Config::parse(&json).and_then(build).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => Rules::default(),
    };
    let mut table = Table::default();
    for sample in samples(options)? {
        let outcome = sample.judge(&waf)?;
        if options.misses && outcome.flagged != sample.attack {
            println!("{}", sample.describe(&outcome));
        }
        table.add(&sample, &outcome);
    }
    print!("{table}");
    Ok(())
}

/// The requests, of the half that is wanted.
fn samples(options: &Options) -> Result<Vec<Sample>, String> {
    let mut samples = Vec::new();
    for path in &options.corpora {
        for (line, sample) in Sample::read(path)?.into_iter().enumerate() {
            let half = if line % 2 == 0 { Half::Even } else { Half::Odd };
            if options.half.is_none_or(|wanted| wanted == half) {
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

fn compare(options: &Options) -> Result<(), String> {
    let samples = samples(options)?;
    let mut columns = Vec::new();
    for engine in options.engine.chunks_exact(3) {
        let [name, plugin, rules] = engine else { continue };
        let engine = Engine::load(&name.to_string_lossy(), plugin, rules, usize::from(options.memory) << 20)?;
        columns.push(Column::measured(&engine, &samples, options.rounds)?);
    }
    let comparison = Comparison::of(columns, &samples);
    print!("{comparison}");
    options.write.as_deref().map_or(Ok(()), |file| comparison.write_into(file))
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

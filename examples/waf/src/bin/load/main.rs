//! The load test: what the node costs beside a proxy without rules, what a swap costs those who use it, and what both cost with
//! nginx.
//!
//! `cargo build --release -p waf --bins && target/release/load`, with wrk and nginx on the path. 32 connections that are
//! kept alive ask for 10 s each: a bare proxy of the same parts, the node in peace, with a fresh instance for every request, and
//! at 5 and at 100 swaps a second; nginx in peace and reloaded every 0.2 s, and with ModSecurity and its packaged rules where
//! that is installed. With `--slow-uploads N` the node is asked once more while N uploads of modules trickle in. All proxies
//! stand in front of the same upstream, and take turns, in so many rounds. `--write FILE` puts the table into a Markdown file,
//! between two lines that say so.
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "a program has nobody outside")]

mod bare;
mod nginx;
mod node;
mod table;
mod wrk;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use hotslot::BoxError;

use self::bare::Bare;
use self::nginx::Nginx;
use self::node::{Node, Swaps};
use self::table::{Measured, Row};

#[derive(Parser)]
struct Options {
    /// For how long each load lasts
    #[arg(long, default_value_t = 10)]
    seconds: u64,

    /// How often each load is run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    #[arg(long, default_value_t = 32)]
    connections: u32,

    /// Swaps a second, one load for each
    #[arg(long, value_delimiter = ',', default_value = "5,100")]
    swaps: Vec<u32>,

    /// One more load, while so many uploads trickle in; the node's admin listener takes 256 connections
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=250))]
    slow_uploads: Option<u32>,

    /// The module that is swapped with a copy of itself
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/universal-waf.wasm"))]
    module: PathBuf,

    /// The Markdown file to write the table into
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("load: requests failed on the node");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether every request to the node was answered.
fn run(options: &Options) -> Result<bool, BoxError> {
    let folder = std::env::temp_dir().join(format!("waf-load-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let upstream = Nginx::upstream(&folder)?;
    let bare = Bare::start(upstream.address)?;
    let node = Node::start(&folder.join("node"), upstream.address, &options.module, 1000)?;
    let fresh = Node::start(&folder.join("fresh"), upstream.address, &options.module, 1)?;
    let nginx = Nginx::proxy(&folder, upstream.address)?;
    let inspecting = Nginx::with_modsecurity(&folder, upstream.address)?;
    let loads = loads(options, &bare, [&node, &fresh], &nginx, inspecting.as_ref());

    // The first load of each is not counted: caches, pools and the branch predictor fill.
    let addresses = [bare.address, node.data, fresh.data, nginx.address];
    for address in addresses.into_iter().chain(inspecting.as_ref().map(|nginx| nginx.address)) {
        wrk::run(address, options.connections, 2)?;
    }
    let mut rows: Vec<Row> = Vec::new();
    rows.extend(loads.iter().map(|load| Row { name: load.name.clone(), beside: load.beside, rounds: Vec::new() }));
    for round in 1..=options.rounds {
        for (load, row) in loads.iter().zip(&mut rows) {
            eprintln!("round {round} of {}: {}", options.rounds, load.name);
            row.rounds.push((load.run)()?);
        }
    }
    let lost = loads.iter().zip(&rows).any(|(load, row)| load.is_ours && row.failed() > 0);
    drop(loads);
    drop((node, fresh, nginx, inspecting, upstream));
    std::fs::remove_dir_all(folder)?;

    let Options { connections, seconds, rounds, .. } = options;
    let date = chrono::Utc::now().format("%Y-%m-%d");
    let text = format!(
        "Measured on {date} with {connections} connections on {} processors, which wrk and the upstream share, {seconds} s for \
         each load, {rounds} rounds in turns: the median, and the lowest and the highest. Ratios are taken within a round.\n\n{}",
        cores(),
        table::table(&rows)
    );
    println!("{text}");
    options.write.as_deref().map_or(Ok(()), |file| write_into(file, &text))?;
    Ok(!lost)
}

/// Something to measure, again and again.
struct Load<'a> {
    name: String,
    /// The load with which it is compared, by its place.
    beside: Option<usize>,
    /// Whether no request may fail.
    is_ours: bool,
    run: Box<dyn Fn() -> Result<Measured, BoxError> + 'a>,
}

fn loads<'a>(
    options: &'a Options,
    bare: &'a Bare,
    [node, fresh]: [&'a Node; 2],
    nginx: &'a Nginx,
    inspecting: Option<&'a Nginx>,
) -> Vec<Load<'a>> {
    let ask = |address| wrk::run(address, options.connections, options.seconds);
    let alone = move |address| -> Box<dyn Fn() -> Result<Measured, BoxError>> {
        Box::new(move || Ok(Measured { load: ask(address)?, swaps: None }))
    };
    let mut loads: Vec<Load<'a>> = Vec::new();
    let mut add = |name: &str, beside, is_ours, run| {
        loads.push(Load { name: name.to_owned(), beside, is_ours, run });
        Some(loads.len() - 1)
    };
    let bare = add("a bare hyper proxy", None, false, alone(bare.address));
    let quiet = add("the node", bare, true, alone(node.data));
    add("the node, a fresh instance for each request", bare, true, alone(fresh.data));
    for rate in &options.swaps {
        let run = move || {
            let (load, swaps) = node.while_swapping(*rate, || ask(node.data))?;
            Ok(Measured { load: load?, swaps: Some(swaps) })
        };
        add(&format!("the node at {rate} swaps/s"), quiet, true, Box::new(run));
    }
    if let Some(uploads) = options.slow_uploads {
        let run = move || {
            let (load, open) = node.while_uploads_trickle(uploads, || ask(node.data))?;
            match open < uploads {
                true => Err(format!("only {open} of {uploads} slow uploads were open to the end").into()),
                false => Ok(Measured { load: load?, swaps: None }),
            }
        };
        add(&format!("the node and {uploads} slow uploads"), quiet, true, Box::new(run));
    }
    let plain = add("nginx", bare, false, alone(nginx.address));
    let run = move || {
        let (load, reloads) = nginx.while_reloading(Duration::from_millis(200), || ask(nginx.address));
        Ok(Measured { load: load?, swaps: Some(Swaps { done: reloads, ..Swaps::default() }) })
    };
    add("nginx at 5 reloads/s", plain, false, Box::new(run));
    if let Some(inspecting) = inspecting {
        add("nginx with ModSecurity and its rules", plain, false, alone(inspecting.address));
    }
    loads
}

/// Puts the table where the file says that it belongs.
fn write_into(file: &Path, text: &str) -> Result<(), BoxError> {
    const BEGIN: &str = "<!-- Written by load. -->\n";
    const END: &str = "<!-- The end of what load writes. -->";
    let page = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let place = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = place.ok_or_else(|| format!("{} has no line {}", file.display(), BEGIN.trim_end()))?;
    Ok(std::fs::write(file, format!("{before}{BEGIN}\n{text}\n{END}{after}"))?)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

//! The load test: what a swap costs those who use the node, beside what a reload of nginx costs its users.
//!
//! `cargo build --release -p waf && target/release/load`, with wrk and nginx on the path. 32 connections that are kept
//! alive ask for 15 s each: the node in peace, at 5 and at 100 swaps a second, and nginx in peace and reloaded every
//! 0.2 s. All proxies stand in front of the same upstream. With `--slow-uploads N` the node is asked once more while N
//! uploads of modules trickle in.
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "a program has nobody outside")]

mod nginx;
mod node;
mod wrk;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use hotslot::BoxError;

use self::nginx::Nginx;
use self::node::{Node, Swaps};
use self::wrk::Result as Load;

#[derive(Parser)]
struct Options {
    /// For how long each load lasts
    #[arg(long, default_value_t = 15)]
    seconds: u64,

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
fn run(options: &Options) -> std::result::Result<bool, BoxError> {
    let folder = std::env::temp_dir().join(format!("waf-load-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let upstream = Nginx::upstream(&folder)?;
    let node = Node::start(&folder, upstream.address, &options.module)?;
    let proxy = Nginx::proxy(&folder, upstream.address)?;
    let load = |address| wrk::run(address, options.connections, options.seconds);

    println!("{} connections, {} s each, {} cores\n", options.connections, options.seconds, cores());
    println!("{HEADINGS}");
    // The first load of each is not counted: caches, pools and the branch predictor fill.
    wrk::run(node.data, options.connections, 2)?;
    wrk::run(proxy.address, options.connections, 2)?;

    let mut failed = show("waf, quiet", &load(node.data)?, None);
    for rate in &options.swaps {
        let (result, swaps) = node.while_swapping(*rate, || load(node.data))?;
        failed += show(&format!("waf, {rate} swaps/s"), &result?, Some(&swaps));
    }
    if let Some(uploads) = options.slow_uploads {
        let (result, open) = node.while_uploads_trickle(uploads, || load(node.data))?;
        failed += show(&format!("waf, {uploads} slow uploads"), &result?, None);
        if open < uploads {
            return Err(format!("only {open} of {uploads} slow uploads were open to the end").into());
        }
    }
    show("nginx, quiet", &load(proxy.address)?, None);
    let (result, reloads) = proxy.while_reloading(Duration::from_millis(200), || load(proxy.address));
    show("nginx, 5 reloads/s", &result?, Some(&Swaps { done: reloads, ..Swaps::default() }));
    drop((node, proxy, upstream));
    std::fs::remove_dir_all(folder)?;
    Ok(failed == 0)
}

const HEADINGS: &str = "                         requests     failed      req/s   p50 ms   p99 ms    swaps  swap p50/max ms  held up max ms";

/// Prints a line, and gives the number of requests that failed.
fn show(name: &str, load: &Load, swaps: Option<&Swaps>) -> u64 {
    let Load { requests, failed, per_second, p50, p99 } = load;
    print!("{name:<22} {requests:>10} {failed:>10} {per_second:>10.0} {p50:>8.2} {p99:>8.2}");
    if let Some(Swaps { done, failed, median_ms, longest_ms, held_up_ms }) = swaps {
        print!(" {done:>8}");
        if *longest_ms > 0.0 {
            print!("  {median_ms:>7.2}/{longest_ms:<7.1} {held_up_ms:>15.4}");
        }
        if *failed > 0 {
            print!("  ({failed} swaps refused)");
        }
    }
    println!();
    *failed
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

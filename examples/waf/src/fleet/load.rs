//! Many nodes on one machine, to measure: `waf fleet-load`.
//!
//! The server, the orchestrator and the nodes' part in the fleet are the real ones, with a connection, a disk, an archive and a slot
//! for each node. The proxies are left out: nobody sends requests. And the nodes share this process with one engine, so a module is
//! compiled once, and all else that they do is on one machine's processors: on machines of their own, nodes compile, and stage side
//! by side.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hotslot::BoxError;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::runtime::{Builder, Runtime};

use super::demo::{ask, nats_server, spawn, terminate, token, wait_for};
use super::managed::Managed;
use super::{Endpoint, Membership};
use crate::config::Config;
use crate::deploy;
use crate::live::Traffic;
use crate::metrics::Metrics;
use crate::rules::Engine;

/// What rollouts over many nodes cost.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How many nodes
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=2000))]
    nodes: u32,

    /// How many rollouts are measured
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rollouts: u32,

    /// Where the figures are written, as Markdown [default: only printed]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// The folder in which everything is kept. It must not exist yet
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
}

/// A few calls for each node: what serves, what is staged, and what is warm.
fn configuration(nodes: u32) -> String {
    format!(
        "[waf.trust]\nrequired = false\n[waf.wasm.limits]\nconcurrent_calls = {}\ndeadline_milliseconds = 60000\n\
         [waf.wasm.reload]\nmax_reload_frequency_seconds = 0\ntimeout_seconds = 600\n",
        nodes * 4 + 64
    )
}
/// How long nodes may take to appear, or to change.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Starts everything, measures, and ends it.
pub fn run(options: &Options) -> Result<(), BoxError> {
    let _written = crate::log::start(&crate::log::Log::default());
    if options.data.exists() {
        return Err(format!("{} exists already: name a folder that does not", options.data.display()).into());
    }
    std::fs::create_dir_all(&options.data)?;
    let data = std::path::absolute(&options.data)?;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(servers(&data));
    let mut servers = measured?;
    let nodes = start_nodes(&data, options.nodes, servers.nats, &runtime);
    let measured = match nodes {
        Ok(nodes) => {
            let measured = runtime.block_on(measure(&servers, options));
            drop(nodes);
            measured
        }
        Err(error) => Err(error),
    };
    runtime.block_on(async {
        for server in [&mut servers.orchestrator, &mut servers.server] {
            terminate(server);
            if tokio::time::timeout(Duration::from_secs(10), server.wait()).await.is_err() {
                let _ = server.kill().await;
            }
        }
    });
    runtime.shutdown_background();
    let text = measured?;
    println!("{text}");
    if let Some(out) = &options.out {
        std::fs::write(out, &text).map_err(|error| format!("{}: {error}", out.display()))?;
    }
    Ok(())
}

struct Servers {
    server: Child,
    orchestrator: Child,
    nats: SocketAddr,
    monitor: SocketAddr,
    api: SocketAddr,
    token: String,
    module: Vec<u8>,
}

fn free() -> Result<SocketAddr, BoxError> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

async fn servers(data: &Path) -> Result<Servers, BoxError> {
    let (nats, monitor, api) = (free()?, free()?, free()?);
    let server =
        nats_server().ok_or("there is no nats-server in PATH or in target/servers/nats/bin: see ci/servers")?;
    let config = data.join("nats.conf");
    let store = data.join("nats");
    std::fs::write(
        &config,
        format!(
            "listen: \"{nats}\"\nhttp: \"{monitor}\"\njetstream {{ store_dir: {store:?}, sync_interval: always }}\n"
        ),
    )?;
    let server = spawn(Command::new(server).arg("-c").arg(config), data, "server")?;
    wait_for(nats, "NATS", data).await?;
    let config = data.join("waf.toml");
    std::fs::write(&config, configuration(1))?;
    let mut orchestrator = Command::new(std::env::current_exe()?);
    orchestrator.args(["orchestrator", "--nats", &format!("nats://{nats}"), "--listen", &api.to_string()]);
    orchestrator.arg("--config").arg(&config).arg("--data").arg(data.join("orchestrator"));
    let orchestrator = spawn(&mut orchestrator, data, "orchestrator")?;
    wait_for(api, "the orchestrator", data).await?;
    let token = token(data).await?;
    let module = Config::default().wasm.module;
    let module = std::fs::read(&module).map_err(|error| format!("{}: {error}", module.display()))?;
    Ok(Servers { server, orchestrator, nats, monitor, api, token, module })
}

/// Starts the nodes' part in the fleet.
fn start_nodes(data: &Path, count: u32, nats: SocketAddr, runtime: &Runtime) -> Result<Vec<Managed>, BoxError> {
    let file = data.join("nodes.toml");
    std::fs::write(&file, configuration(count))?;
    let config = Config::read(&file)?;
    let engine = Engine::new(&config, Some(&data.join("compiled")))?;
    let mut nodes = Vec::new();
    for number in 1..=count {
        let name = format!("node-{number}");
        let mut config = Config::read(&file)?;
        config.data = data.join(&name);
        config.demo = true;
        std::fs::create_dir_all(&config.data)?;
        let (traffic, metrics) = (Arc::new(Traffic::default()), Arc::new(Metrics::new()));
        let modules = deploy::start_on(&engine, &config, runtime.handle(), &traffic, &metrics)?;
        let servers = vec![format!("nats://{nats}").parse()?];
        let membership = Membership {
            endpoint: Endpoint { servers, nkey: None, nats_ca: None },
            name: Some(name),
            labels: Vec::new(),
            fetch_splay: Duration::ZERO,
        };
        nodes.push(super::node::start(&config, &membership, modules.first(), runtime)?);
        if number % 50 == 0 {
            println!("{number} nodes");
        }
    }
    Ok(nodes)
}

impl Servers {
    async fn get(&self, path: &str) -> Result<Value, BoxError> {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            self.api, self.token
        );
        body(&ask(self.api, head.into_bytes()).await?)
    }

    async fn release(&self, module: &[u8]) -> Result<Value, BoxError> {
        let plan = r#"{"waves":[],"bake":0,"stage_deadline":1800000,"commit_deadline":600000,"max_failed_per_mille":0,
            "min_present_per_mille":0,"analysis":{"min_calls":0}}"#;
        let boundary = "a-boundary-that-no-module-has";
        let mut form = Vec::new();
        for (name, value) in [("plan", plan), ("wait", "1800"), ("reason", "to measure")] {
            let part = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            form.extend(part.bytes());
        }
        let file = "Content-Disposition: form-data; name=\"file\"; filename=\"universal-waf.wasm\"";
        form.extend(format!("--{boundary}\r\n{file}\r\n\r\n").bytes());
        form.extend(module);
        form.extend(format!("\r\n--{boundary}--\r\n").bytes());
        let head = format!(
            "POST /api/v1/wasm/reload-fleet HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
             Content-Type: multipart/form-data; boundary={boundary}\r\nContent-Length: {}\r\n\r\n",
            self.api,
            self.token,
            form.len()
        );
        body(&ask(self.api, [head.as_bytes(), &form].concat()).await?)
    }

    /// What the server has taken in and given out, and how long it has worked.
    async fn spent(&self) -> Result<Spent, BoxError> {
        let head = format!("GET /varz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.monitor);
        let told = body(&ask(self.monitor, head.into_bytes()).await?)?;
        let figure = |name: &str| told[name].as_u64().ok_or_else(|| format!("the server says nothing of {name}"));
        let messages = (figure("in_msgs")?, figure("out_msgs")?);
        let bytes = (figure("in_bytes")?, figure("out_bytes")?);
        Ok(Spent {
            messages,
            bytes,
            cpu_ms: [&self.server, &self.orchestrator].map(|process| process.id().and_then(cpu_ms)),
        })
    }
}

fn body(answer: &str) -> Result<Value, BoxError> {
    let (head, rest) = answer.split_once("\r\n\r\n").ok_or("an answer without a body")?;
    // What is sent in pieces has their lengths on lines of their own.
    let text = match head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        true => rest.split("\r\n").skip(1).step_by(2).collect::<String>(),
        false => rest.to_owned(),
    };
    Ok(serde_json::from_str(&text).map_err(|error| format!("{error}: {head}"))?)
}

#[derive(Clone, Copy)]
struct Spent {
    messages: (u64, u64),
    bytes: (u64, u64),
    /// Of the server, and of the orchestrator.
    cpu_ms: [Option<u64>; 2],
}

/// The processor time of another process, where the system says so; it counts in hundredths of a second.
fn cpu_ms(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks * 10)
}

fn quantile(sorted: &[f64], of: f64) -> f64 {
    sorted.get(((sorted.len() as f64 * of) as usize).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

async fn measure(servers: &Servers, options: &Options) -> Result<String, BoxError> {
    let nodes = options.nodes as usize;
    let began = Instant::now();
    loop {
        let fleet = servers.get("/api/v1/fleet").await?;
        let present = |node: &&Value| node["present"] == true;
        if fleet["nodes"].as_array().is_some_and(|all| all.iter().filter(present).count() == nodes) {
            break;
        }
        if began.elapsed() > PATIENCE {
            return Err("not all nodes appear: see the logs".into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let first = servers.release(&servers.module).await?;
    if first["state"] != "done" {
        return Err(format!("the first release: {first}").into());
    }
    let (mut text, mut failed) = (String::new(), None);
    let _ = writeln!(
        text,
        "`waf fleet-load --nodes {nodes}`: a {} build, {} processors shared by the server, the orchestrator and all nodes.\n",
        if cfg!(debug_assertions) { "debug" } else { "release" },
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    );
    let _ = writeln!(
        text,
        "| rollout | `reload-fleet` to done | all staged | committed, from then on | skew p50 | skew p99 | hint to commit p50 | p99 | messages in, out | \
         KiB in, out | server's CPU | orchestrator's CPU |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
    );
    for round in 1..=options.rollouts {
        let before = servers.spent().await?;
        // Another digest, and nothing else that is different: a custom section.
        let asked = Instant::now();
        let release =
            servers.release(&[&servers.module[..], &[0, 5, 4, b'm', b'o', b'r', round as u8]].concat()).await?;
        let took = asked.elapsed().as_millis();
        let after = servers.spent().await?;
        let served: Vec<&Value> =
            release["served"].as_object().into_iter().flat_map(|served| served.values()).collect();
        if release["state"] != "done" || served.len() != nodes {
            failed = Some(format!("a rollout over {} of {nodes} nodes: {}", served.len(), release["alarms"]));
            break;
        }
        let step = |wanted: &str| {
            let steps = release["steps"].as_array().into_iter().flatten();
            steps
                .into_iter()
                .find(|step| step["state"].as_str().is_some_and(|state| state.starts_with(wanted)))
                .and_then(|step| step["after_ms"].as_f64())
                .unwrap_or_default()
        };
        let sorted = |name: &str| {
            let mut figures: Vec<f64> = served.iter().filter_map(|served| served[name].as_f64()).collect();
            figures.sort_by(f64::total_cmp);
            figures
        };
        let (after_ms, hint) = (sorted("after_ms"), sorted("after_hint_ms"));
        let first = after_ms.first().copied().unwrap_or_default();
        let staged = step("committing");
        let last = after_ms.last().copied().unwrap_or_default();
        let cpu = |of: usize| match (before.cpu_ms[of], after.cpu_ms[of]) {
            (Some(before), Some(after)) => format!("{} ms", after.saturating_sub(before)),
            _ => "not known here".to_owned(),
        };
        let _ = writeln!(
            text,
            "| {round} | {took} ms | {staged:.0} ms | {:.0} ms | {:.1} ms | {:.1} ms | {:.1} ms | {:.1} ms | {}, {} | {}, {} | {} | {} |",
            last - staged,
            quantile(&after_ms, 0.5) - first,
            quantile(&after_ms, 0.99) - first,
            quantile(&hint, 0.5),
            quantile(&hint, 0.99),
            after.messages.0 - before.messages.0,
            after.messages.1 - before.messages.1,
            (after.bytes.0 - before.bytes.0) >> 10,
            (after.bytes.1 - before.bytes.1) >> 10,
            cpu(0),
            cpu(1),
        );
    }
    match failed {
        Some(failed) => Err(failed.into()),
        None => Ok(text),
    }
}

//! A fleet on one machine, to look at: `waf fleet-demo`.
//!
//! Everything is the real thing in processes of its own: a NATS server, an orchestrator, three nodes in front of demo upstreams,
//! and some traffic. What they keep lies in one folder, and is there again at the next start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hotslot::BoxError;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use super::demo_key::{self, Signed};

/// A fleet on this machine.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The folder in which everything is kept
    #[arg(long, value_name = "FOLDER", default_value = "waf-fleet")]
    data: PathBuf,

    /// The first of the ports: the orchestrator has it, the nodes the next ones, their admin APIs those from 1011 on, NATS the one
    /// before
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,

    /// Requests in a second, to each node
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    traffic: u32,
}

/// Eight processes share this machine, perhaps unoptimised: a call that waits for a processor is no fault of the rules.
const UNHURRIED: &str = "[waf.wasm.limits]\ndeadline_milliseconds = 5000\n[waf.wasm.reload]\ntimeout_seconds = 120\n";

const NODES: u16 = 3;
/// From a node's port to its admin API's: 8081 and 9091.
const ADMIN: u16 = 1010;

struct Ports {
    nats: SocketAddr,
    orchestrator: SocketAddr,
    /// A node, and its admin API.
    nodes: Vec<(SocketAddr, SocketAddr)>,
}

impl Ports {
    fn from(first: u16) -> Result<Ports, BoxError> {
        let at = |port: Option<u16>| port.map(|port| SocketAddr::from(([127, 0, 0, 1], port))).ok_or("no such port");
        let node = |number| {
            let port = first.checked_add(number);
            Ok((at(port)?, at(port.and_then(|port| port.checked_add(ADMIN)))?))
        };
        let nodes = (1..=NODES).map(node).collect::<Result<_, &str>>()?;
        Ok(Ports { nats: at(first.checked_sub(1))?, orchestrator: at(Some(first))?, nodes })
    }

    /// Fails with everything that is taken.
    async fn are_free(&self) -> Result<(), BoxError> {
        let nodes = self.nodes.iter().enumerate().flat_map(|(index, (data, admin))| {
            let name = format!("node-{}", index + 1);
            [(format!("{name}'s admin API"), *admin), (name, *data)]
        });
        let fixed = [("NATS".to_owned(), self.nats), ("the orchestrator".to_owned(), self.orchestrator)];
        let mut taken = Vec::new();
        for (what, address) in fixed.into_iter().chain(nodes) {
            if TcpListener::bind(address).await.is_err() {
                taken.push(format!("{address}, for {what}"));
            }
        }
        match taken.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "these ports are taken: {}. Free them, or choose others with --port, for instance --port 18080",
                taken.join("; ")
            )
            .into()),
        }
    }
}

/// Runs the fleet until it is told to stop, or until a part of it has ended.
pub async fn run(options: Options, stopping: impl Future<Output = ()>) -> Result<(), BoxError> {
    let ports = Ports::from(options.port)?;
    ports.are_free().await?;
    std::fs::create_dir_all(&options.data).map_err(|error| format!("{}: {error}", options.data.display()))?;
    let data = std::path::absolute(&options.data)?;
    let server = nats_server().ok_or(
        "there is no nats-server in PATH or in target/servers/nats/bin: `ci/servers` installs it there, or see nats.io",
    )?;
    let waf = std::env::current_exe()?;
    let url = format!("nats://{}", ports.nats);

    let config = data.join("nats.conf");
    std::fs::write(&config, nats_configuration(ports.nats, &data.join("nats")))?;
    let mut parts = vec![("NATS".to_owned(), spawn(Command::new(server).arg("-c").arg(config), &data, "nats")?)];
    wait_for(ports.nats, "NATS", &data).await?;

    let plan = data.join("plan.json");
    std::fs::write(&plan, serde_json::to_vec_pretty(&demo_plan())?)?;
    let usual = crate::config::Config::default();
    let signed = demo_key::sign(&data, &usual.modules()?[0].name, &usual.wasm.module)?;
    let config = data.join("waf.toml");
    let trust = format!("[waf.trust]\nroot = {:?}\n[waf.wasm]\nmodule = {:?}\n", signed.root, signed.module);
    std::fs::write(&config, trust + UNHURRIED)?;
    let mut orchestrator = Command::new(&waf);
    orchestrator.args(["orchestrator", "--nats", &url]).arg("--listen").arg(ports.orchestrator.to_string());
    orchestrator.arg("--config").arg(&config).arg("--data").arg(data.join("orchestrator")).arg("--plan").arg(&plan);
    parts.push(("the orchestrator".to_owned(), spawn(&mut orchestrator, &data, "orchestrator")?));
    for (index, (listen, admin)) in ports.nodes.iter().enumerate() {
        let name = format!("node-{}", index + 1);
        let mut node = Command::new(&waf);
        node.args(["node", "--demo", "--fleet", &url, "--node", &name, "--listen"]).arg(listen.to_string());
        node.arg("--config").arg(&config).arg("--admin").arg(admin.to_string()).arg("--data").arg(data.join(&name));
        parts.push((name.clone(), spawn(&mut node, &data, &name)?));
    }
    wait_for(ports.orchestrator, "the orchestrator", &data).await?;
    for (index, (listen, _)) in ports.nodes.iter().enumerate() {
        wait_for(*listen, &format!("node-{}", index + 1), &data).await?;
    }
    let token = token(&data).await?;
    print_what_to_try(&ports, &data, &token, &signed);

    let traffic = tokio::spawn(traffic(ports.nodes.iter().map(|(listen, _)| *listen).collect(), options.traffic));
    let first = tokio::spawn(first_release(ports.orchestrator, token, signed));
    let ended = tokio::select! {
        () = stopping => None,
        name = one_ends(&mut parts) => Some(name),
    };
    traffic.abort();
    first.abort();
    // The nodes first, so that they end in good order.
    for (_, part) in parts.iter_mut().rev() {
        terminate(part);
        if tokio::time::timeout(Duration::from_secs(10), part.wait()).await.is_err() {
            let _ = part.kill().await;
        }
    }
    match ended {
        Some(name) => Err(format!("{name} has ended: see its log in {}", data.display()).into()),
        None => Ok(()),
    }
}

/// The server in `PATH`, or the one that `ci/servers` installs.
pub(super) fn nats_server() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers/nats/bin");
    std::env::split_paths(&path).chain([installed]).map(|folder| folder.join("nats-server")).find(|file| file.is_file())
}

/// What is acknowledged is on the disk: without `sync_interval` that is so after two minutes only.
pub(super) fn nats_configuration(address: SocketAddr, store: &Path) -> String {
    format!("listen: \"{address}\"\njetstream {{ store_dir: {store:?}, sync_interval: always }}\n")
}

/// A plan for somebody who watches.
fn demo_plan() -> waf_rollout::Plan {
    use waf_rollout::{Analysis, Plan, WavePlan, WaveSize};
    Plan {
        waves: vec![WavePlan { size: WaveSize::Nodes(1), bake: 10_000 }],
        bake: 3_000,
        stage_deadline: 120_000,
        commit_deadline: 30_000,
        analysis: Analysis { min_calls: 20, ..Analysis::default() },
        ..Plan::default()
    }
}

pub(super) fn spawn(command: &mut Command, data: &Path, name: &str) -> Result<Child, BoxError> {
    let log = std::fs::File::create(data.join(format!("{name}.log")))?;
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true).spawn();
    child.map_err(|error| format!("{name}: {error}").into())
}

/// Waits until somebody listens there.
pub(super) async fn wait_for(address: SocketAddr, what: &str, data: &Path) -> Result<(), BoxError> {
    // A debug build compiles the module for seconds at its first start.
    for _ in 0..3000 {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    Err(format!("{what} does not come up on {address}: see its log in {}", data.display()).into())
}

async fn one_ends(parts: &mut [(String, Child)]) -> String {
    let waits = parts.iter_mut().map(|(name, part)| {
        Box::pin(async move {
            let _ = part.wait().await;
            name.clone()
        })
    });
    futures_util::future::select_all(waits).await.0
}

#[cfg(unix)]
pub(super) fn terminate(part: &Child) {
    if let Some(id) = part.id() {
        let _ = std::process::Command::new("kill").arg(id.to_string()).status();
    }
}

#[cfg(not(unix))]
pub(super) fn terminate(_: &Child) {}

pub(super) async fn token(data: &Path) -> Result<String, BoxError> {
    let path = data.join("orchestrator/token");
    let token = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(token.trim().to_owned())
}

fn print_what_to_try(ports: &Ports, data: &Path, token: &str, signed: &Signed) {
    let api = format!("http://{}", ports.orchestrator);
    let (node, admin) = ports.nodes[0];
    println!("the fleet is up; everything it keeps, logs included, is in {}", data.display());
    println!("  the orchestrator      {api}");
    for (index, (listen, admin)) in ports.nodes.iter().enumerate() {
        println!("  node-{}                http://{listen}, its admin API http://{admin}", index + 1);
    }
    println!(
        r#"
try (the first release takes half a minute: a new orchestrator listens before it acts)
  export API={api} TOKEN={token}
  curl $API/api/v1/fleet -H "Authorization: Bearer $TOKEN"

  # a release that nobody has signed reaches no node
  (cat {module}; printf '\0\5\4more') > /tmp/new.wasm
  curl -X POST $API/api/v1/wasm/reload-fleet -H "Authorization: Bearer $TOKEN" -F file=@/tmp/new.wasm -F target=all

  # the same, signed with the demo's own key: one canary for ten seconds, then everybody
  cargo run -p cargo-hotslot -- sign /tmp/new.wasm --key {key} --slot universal-waf
  curl -X POST $API/api/v1/wasm/reload-fleet -H "Authorization: Bearer $TOKEN" -F file=@/tmp/new.wasm -F target=all \
    -F manifest=@/tmp/new.wasm.manifest -F signatures=@/tmp/new.wasm.manifest.minisig
  curl -N $API/api/v1/rollouts/2/events -H "Authorization: Bearer $TOKEN"

  # a rule from outside, on all nodes
  cargo run -p waf --example post_rule -- no-wordpress /wp-login.php
  curl -i http://{node}/wp-login.php

  # one that blocks a third of the traffic: its canary shows it, and nobody else gets it
  cargo run -p waf --example post_rule -- no-echo /echo

  # back to the release before, at once
  curl -X POST $API/api/v1/fleet/rollback -H "Authorization: Bearer $TOKEN"

  # a node cannot be changed by hand, unless somebody breaks the glass
  curl -X POST http://{admin}/api/v1/wasm/rollback -H "Authorization: Bearer $(cat {data}/node-1/token)"
"#,
        data = data.display(),
        module = signed.module.display(),
        key = signed.key.display()
    );
}

/// Gives a new fleet the release that its nodes have started with.
async fn first_release(orchestrator: SocketAddr, token: String, signed: Signed) {
    let module = match std::fs::read(&signed.module) {
        Ok(module) => module,
        Err(error) => return println!("the first release: {error}"),
    };
    let send = |method: &str, path: &str, headers: &str, body: &[u8]| {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {orchestrator}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
             Content-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        ask(orchestrator, [head.as_bytes(), body].concat())
    };
    match send("GET", "/api/v1/fleet", "", b"").await {
        Ok(answer) if answer.contains("\"rollout\":null") => {}
        Ok(_) => return,
        Err(error) => return println!("the fleet's state: {error}"),
    }
    let boundary = "a-boundary-that-no-module-has";
    let mut body = Vec::new();
    for (name, value) in [("plan", "at_once"), ("reason", "the first release"), ("wait", "90")] {
        body.extend(
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes(),
        );
    }
    for (name, path) in signed.beside() {
        let content = match tokio::fs::read_to_string(&path).await {
            Ok(content) => content,
            Err(error) => return println!("the first release: {}: {error}", path.display()),
        };
        body.extend(
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n").bytes(),
        );
    }
    let file = "Content-Disposition: form-data; name=\"file\"; filename=\"universal-waf.wasm\"";
    body.extend(format!("--{boundary}\r\n{file}\r\n\r\n").bytes());
    body.extend(module);
    body.extend(format!("\r\n--{boundary}--\r\n").bytes());
    let kind = format!("Content-Type: multipart/form-data; boundary={boundary}\r\nIdempotency-Key: first\r\n");
    match send("POST", "/api/v1/wasm/reload-fleet", &kind, &body).await {
        Ok(answer) => println!("the first release: {}", answer.rsplit("\r\n\r\n").next().unwrap_or_default()),
        Err(error) => println!("the first release: {error}"),
    }
}

pub(super) async fn ask(address: SocketAddr, request: Vec<u8>) -> std::io::Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(&request).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Ordinary visitors, and now and then an attack.
async fn traffic(nodes: Vec<SocketAddr>, per_second: u32) {
    if per_second == 0 {
        return;
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    let targets = ["/", "/products?category=garden", "/echo?q=tulips", "/search?q=%3Cscript%3Ealert(1)%3C/script%3E"];
    for round in 0_usize.. {
        ticks.tick().await;
        for (index, node) in nodes.iter().enumerate() {
            // One in ten is an attack.
            let target = if (round + index) % 10 == 0 { targets[3] } else { targets[(round + index) % 3] };
            let request = format!(
                "GET {target} HTTP/1.1\r\nHost: {node}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 \
                 Firefox/140.0\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
            );
            let node = *node;
            tokio::spawn(async move { ask(node, request.into_bytes()).await });
        }
    }
}

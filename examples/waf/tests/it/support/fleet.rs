//! A fleet: a real NATS server, an orchestrator and nodes, each the real program, on free ports.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{Answer, Wish, request};
use super::node::{Folder, Node, TOKEN};
use super::wait::until;
use super::{Module, get};

/// A port that is free, as far as anybody knows.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("a port").port()
}

/// The server in `PATH`, or the one that `ci/servers` installs.
pub fn nats_server() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers/nats/bin");
    std::env::split_paths(&path).chain([installed]).map(|folder| folder.join("nats-server")).find(|file| file.is_file())
}

/// A NATS server with JetStream, that can be killed and started again.
pub struct Nats {
    child: Option<Child>,
    port: u16,
    folder: TempDir,
    configuration: String,
    /// What is said of JetStream beside its folder.
    jetstream: String,
}

impl Nats {
    /// `None`, with a line that says so, where there is none.
    pub fn start() -> Option<Nats> {
        Nats::configured("")
    }

    /// One with more in its configuration.
    pub fn configured(configuration: &str) -> Option<Nats> {
        Nats::with(configuration, "")
    }

    /// The same with more about JetStream.
    pub fn with(configuration: &str, jetstream: &str) -> Option<Nats> {
        if nats_server().is_none() {
            eprintln!("skipped: there is no nats-server in PATH or in target/servers: see ci/servers");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (configuration, jetstream) = (configuration.to_owned(), jetstream.to_owned());
        let mut nats = Nats { child: None, port: free_port(), folder, configuration, jetstream };
        nats.restart();
        Some(nats)
    }

    /// Starts it, or starts it again with what it has on its disk.
    pub fn restart(&mut self) {
        let path = self.folder.path().join("nats.conf");
        let store = self.store();
        let text = format!(
            "listen: \"127.0.0.1:{}\"\nserver_name: \"nats-{}\"\njetstream {{ store_dir: {store:?}, {} }}\n{}",
            self.port, self.port, self.jetstream, self.configuration
        );
        std::fs::write(&path, text).expect("a configuration");
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log");
        let mut command = Command::new(nats_server().expect("a server"));
        command.arg("-c").arg(&path).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("nats-server"));
        let began = std::time::Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < super::http::FOREVER, "nats-server never listens");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Three servers that keep everything together.
    pub fn cluster() -> Option<Vec<Nats>> {
        let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let routes: Vec<String> = ports.iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
        let routes = routes.join(", ");
        let server = |port: &u16| {
            Nats::configured(&format!("cluster {{ name: waf, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}\n"))
        };
        ports.iter().map(server).collect()
    }

    /// The name of the server.
    pub fn name(&self) -> String {
        format!("nats-{}", self.port)
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("to be killed");
            child.wait().expect("its end");
        }
    }

    /// Takes what it keeps away. It must not run.
    pub fn wipe(&self) {
        assert!(self.child.is_none());
        std::fs::remove_dir_all(self.store()).expect("to be removed");
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.expect("a connection")
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An orchestrator: the real program, with a folder that outlives it.
pub struct Orchestrator {
    child: Option<Child>,
    pub address: SocketAddr,
    folder: TempDir,
    arguments: Vec<String>,
}

/// What a release has to bear before nodes hear of it: nothing that a test's module could not.
const EXAMINATION: &str = "[waf.wasm]\ngolden = []\n[waf.wasm.reload]\ntimeout_seconds = 300\n\
                           [waf.wasm.limits]\ndeadline_milliseconds = 5000\n";
/// What these tests are about is not who has signed what; those in `trust.rs` are.
pub const ANYTHING: &str = "[waf.trust]\nrequired = false\n";

impl Orchestrator {
    pub fn start(url: &str, plan: &Value, more: &[&str]) -> Orchestrator {
        Orchestrator::configured(url, plan, more, ANYTHING)
    }

    /// The same with whose signatures count.
    pub fn configured(url: &str, plan: &Value, more: &[&str], trust: &str) -> Orchestrator {
        Orchestrator::listening(free_port(), url, plan, more, trust)
    }

    /// The same on a port that is known before.
    pub fn listening(port: u16, url: &str, plan: &Value, more: &[&str], trust: &str) -> Orchestrator {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        std::fs::write(folder.path().join("waf.toml"), format!("{EXAMINATION}{trust}")).expect("a configuration");
        std::fs::write(folder.path().join("plan.json"), plan.to_string()).expect("a plan");
        let mut arguments = vec!["orchestrator".to_owned(), "--nats".to_owned(), url.to_owned()];
        for (option, value) in [
            ("--config", path("waf.toml")),
            ("--plan", path("plan.json")),
            ("--data", path("data")),
            ("--listen", address.to_string()),
        ] {
            arguments.extend([option.to_owned(), value]);
        }
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let mut orchestrator = Orchestrator { child: None, address, folder, arguments };
        orchestrator.restart();
        orchestrator
    }

    /// Starts it, or starts it again with what it has on its disk.
    pub fn restart(&mut self) {
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_waf"));
        command.args(&self.arguments).env("WAF_ADMIN_TOKEN", TOKEN).env("WAF_LOG", "info").stderr(log);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the orchestrator");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        lines
            .find(|line| line.contains("API and its page"))
            .unwrap_or_else(|| panic!("it did not start:\n{}", self.log()));
        self.child = Some(child);
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("to be killed");
            child.wait().expect("its end");
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("a log")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    pub fn ask(&self, method: Method, target: &str) -> Wish {
        request(self.address, method, target).token(TOKEN)
    }

    pub async fn get(&self, target: &str) -> Value {
        self.ask(Method::GET, target).send().await.json()
    }

    pub async fn fleet(&self) -> Value {
        self.get("/api/v1/fleet").await
    }

    /// Rolls a module out.
    pub async fn release(&self, module: &[u8], fields: &[(&str, &str)]) -> Answer {
        let mut form: Vec<(&str, Option<&str>, &[u8])> =
            fields.iter().map(|(name, value)| (*name, None, value.as_bytes())).collect();
        form.push(("file", Some("universal-waf.wasm"), module));
        self.ask(Method::POST, "/api/v1/wasm/reload-fleet").form(&form).send().await
    }

    /// Gives a command without more to say.
    pub async fn command(&self, target: &str) -> Answer {
        self.ask(Method::POST, target).send().await
    }

    /// Waits until it leads.
    pub async fn wait_to_lead(&self) {
        until("it to lead", || async { (self.fleet().await["leads"] == true).then_some(()) }).await;
    }

    /// Waits until the current rollout is in a state.
    pub async fn wait_for_state(&self, state: &str) -> Value {
        until(&format!("a rollout that is {state}"), || async move {
            let fleet = self.fleet().await;
            (fleet["rollout"]["state"] == state).then(|| fleet["rollout"].clone())
        })
        .await
    }
}

impl Drop for Orchestrator {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the orchestrator's log:\n{}", self.log());
        }
    }
}

/// Starts a node in a fleet.
pub fn join(folder: Folder, url: &str, name: &str, more: &[&str]) -> Node {
    join_as(folder, url, name, more, |_| ())
}

/// The same with what is made of its command.
pub fn join_as(folder: Folder, url: &str, name: &str, more: &[&str], change: impl FnOnce(&mut Command)) -> Node {
    let log = std::fs::File::options().create(true).append(true).open(folder.path("log")).expect("a log");
    folder.start_as(|command| {
        let mut node = Command::new(command.get_program());
        node.args(["node", "--fleet", url, "--node", name]).args(command.get_args()).args(more);
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => node.env(key, value),
                None => node.env_remove(key),
            };
        }
        node.env("WAF_LOG", "info").stderr(log);
        change(&mut node);
        node
    })
}

/// A folder for a node of a fleet. Its deadline is not what these tests are about: a machine that runs three fleets at once keeps
/// a call waiting for longer than a usual one.
pub fn folder(module: &Module, changes: &str) -> Folder {
    let mut folder = Folder::new(module, ANYTHING);
    folder.configure(changes);
    folder.configure("[waf.wasm.limits]\ndeadline_milliseconds = 30000");
    folder
}

/// A server, an orchestrator and nodes that serve version 1.0.0, which the fleet has settled on.
pub struct Fleet {
    // The nodes end first.
    pub nodes: Vec<Node>,
    pub orchestrator: Orchestrator,
    pub nats: Nats,
}

/// Everybody at once.
pub fn at_once() -> Value {
    json!({ "waves": [], "bake": 0, "stage_deadline": 240_000, "commit_deadline": 120_000, "max_failed_per_mille": 0,
            "min_present_per_mille": 0, "analysis": nothing_compared() })
}

/// One canary for so many milliseconds, then everybody.
pub fn canary(bake: u64) -> Value {
    let mut plan = at_once();
    plan["waves"] = json!([{ "size": { "nodes": 1 }, "bake": bake }]);
    plan
}

/// Only probations judge.
pub fn nothing_compared() -> Value {
    json!({ "min_calls": 0, "max_error_increase_per_mille": 1000, "max_p99_percent": 4_000_000_000_u64,
            "p99_tolerance_us": 1_000_000_000_000_u64, "max_blocked_shift_per_mille": 1000 })
}

impl Fleet {
    /// `None`, with a line that says so, where there is no NATS server.
    pub async fn start(nodes: usize, plan: Value) -> Option<Fleet> {
        Fleet::configured(nodes, plan, |_| String::new()).await
    }

    /// The same with changes to the configuration of each node.
    pub async fn configured(nodes: usize, plan: Value, changes: impl Fn(usize) -> String) -> Option<Fleet> {
        let nats = Nats::start()?;
        let orchestrator = Orchestrator::start(&nats.url(), &plan, &[]);
        let module = Module::new("1.0.0");
        let nodes =
            (0..nodes).map(|number| join(folder(&module, &changes(number)), &nats.url(), &name(number), &[])).collect();
        let fleet = Fleet { nodes, orchestrator, nats };
        fleet.settle().await;
        Some(fleet)
    }

    /// Waits for the nodes and makes 1.0.0 the fleet's release.
    pub async fn settle(&self) {
        self.wait_for_nodes().await;
        let answer = self.orchestrator.release(&Module::new("1.0.0").bytes(), &[("plan", "at_once")]).await;
        assert_eq!(answer.json()["state"], "done", "{}", answer.text());
    }

    pub async fn wait_for_nodes(&self) {
        until("all nodes", || async {
            let fleet = self.orchestrator.fleet().await;
            let present = fleet["nodes"].as_array()?.iter().filter(|node| node["present"] == true).count();
            (present == self.nodes.len()).then_some(())
        })
        .await;
    }

    /// Waits until every node says by itself that it serves a version.
    pub async fn wait_for_version(&self, version: &str) {
        for node in &self.nodes {
            until(&format!("{version} on all nodes"), || async {
                (node.version().await["version"] == version).then_some(())
            })
            .await;
        }
    }
}

pub fn name(number: usize) -> String {
    format!("node-{}", number + 1)
}

/// The numbers of the generations that a node has served, the latest first, without the one that it started with.
pub async fn swaps(node: &Node) -> Vec<Value> {
    let history = node.admin("/api/v1/wasm/history").await;
    let reloads = history["reloads"].as_array().expect("a list").clone();
    reloads
        .into_iter()
        .filter(|it| it["success"] == true && it["unchanged"] == false && it["trigger"] != "start")
        .collect()
}

/// Clients of every node, that ask for a page again and again until they are told to stop.
pub struct Load {
    done: std::sync::Arc<std::sync::atomic::AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<(u64, Vec<String>)>>,
}

impl Load {
    pub fn start(nodes: &[Node], target: &'static str) -> Load {
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let client = |node: &Node| {
            let (address, done) = (node.data, std::sync::Arc::clone(&done));
            tokio::spawn(async move {
                let (mut count, mut failed) = (0, Vec::new());
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let answer = get(address, target).await;
                    count += 1;
                    if answer.status != 200 {
                        failed.push(format!("{address}: {} {}", answer.status, answer.text()));
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                (count, failed)
            })
        };
        Load { tasks: nodes.iter().map(client).collect(), done }
    }

    /// How many requests there were, and those that failed.
    pub async fn end(self) -> (u64, Vec<String>) {
        self.done.store(true, std::sync::atomic::Ordering::Relaxed);
        let (mut count, mut failed) = (0, Vec::new());
        for task in self.tasks {
            let (more, also) = task.await.expect("a client");
            count += more;
            failed.extend(also);
        }
        (count, failed)
    }
}

//! A node: the real program, on free ports, in a folder of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hyper::Method;
use serde_json::Value;
use tempfile::TempDir;
use toml::{Table, Value as Toml};

use super::Module;
use super::http::{Answer, get, request};

pub const TOKEN: &str = "a-token-for-tests-only";

pub struct Node {
    child: Child,
    pub data: SocketAddr,
    pub admin: SocketAddr,
    /// What it said at its start.
    pub said: Vec<String>,
    pub folder: Folder,
}

/// Where a node keeps everything: it outlives the node.
pub struct Folder {
    folder: TempDir,
    config: Table,
}

impl Folder {
    /// A folder with a module, and a configuration with these changes to what tests usually want.
    pub fn new(module: &Module, changes: &str) -> Folder {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| Toml::from(folder.path().join(name).to_str().expect("a path"));
        let mut config: Table = toml::from_str(USUAL).expect("the usual configuration");
        let waf = config["waf"].as_table_mut().expect("a table");
        waf.insert("data".to_owned(), path("data"));
        waf["wasm"].as_table_mut().expect("a table").insert("module".to_owned(), path("universal-waf.wasm"));
        merge(&mut config, toml::from_str(changes).expect("changes to the configuration"));
        let folder = Folder { folder, config };
        folder.put_module(module);
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn module(&self) -> PathBuf {
        self.path("universal-waf.wasm")
    }

    pub fn rule_file(&self) -> PathBuf {
        self.path("data/waf-config.json")
    }

    pub fn archive(&self) -> PathBuf {
        self.path("data/archive")
    }

    /// Replaces the module file as a whole.
    pub fn put_module(&self, module: &Module) {
        replace(&self.module(), &module.bytes());
    }

    /// Changes the configuration for the next start.
    pub fn configure(&mut self, changes: &str) {
        merge(&mut self.config, toml::from_str(changes).expect("changes to the configuration"));
    }

    /// Takes a key out of the configuration.
    pub fn forget(&mut self, table: &str, key: &str) {
        let table = table.split('.').fold(&mut self.config, |table, name| table[name].as_table_mut().expect("a table"));
        table.remove(key);
    }

    pub fn command(&self) -> Command {
        let config = self.path("waf.toml");
        std::fs::write(&config, self.config.to_string()).expect("a configuration");
        let mut command = Command::new(env!("CARGO_BIN_EXE_waf"));
        command.arg("--config").arg(config).arg("--demo").env_remove("WAF_ADMIN_TOKEN");
        // For the store of a test; nothing else looks at them.
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").env("AWS_REGION", "test");
        command
    }

    pub fn start(self) -> Node {
        self.start_as(|command| command)
    }

    /// Starts a node whose log is kept: see [`Folder::log`].
    pub fn start_logged(self) -> Node {
        let log = std::fs::File::create(self.path("log")).expect("a file");
        self.start_as(|mut command| {
            command.env("WAF_LOG", "info").stderr(log);
            command
        })
    }

    /// What a node has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).expect("a log")
    }

    /// The compiled modules that are kept.
    pub fn compiled(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.path("data/compiled")).expect("a folder");
        let paths = files.map(|file| file.expect("a file").path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "module")).collect()
    }

    /// Starts the node with what is made of its command.
    pub fn start_as(self, change: impl FnOnce(Command) -> Command) -> Node {
        let mut child = change(self.command()).stdout(Stdio::piped()).spawn().expect("the node");
        let mut said = Vec::new();
        let mut address = |what: &str, lines: &mut dyn Iterator<Item = String>| -> SocketAddr {
            let line = lines.inspect(|line| said.push(line.clone())).find(|line| line.contains(what));
            let line = line.expect("the node says where it is");
            // A Unix socket has none.
            let Some((_, rest)) = line.split_once("://") else { return SocketAddr::from(([0, 0, 0, 0], 0)) };
            rest.split(',').next().expect("an address").trim().parse().expect("an address")
        };
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let data = address("serving on", &mut lines);
        let admin = address("admin API", &mut lines);
        Node { child, data, admin, said, folder: self }
    }
}

// A debug build compiles the real module for seconds, and for more than the usual half a minute where others compile, too.
const USUAL: &str = r#"
[waf]
listen = "127.0.0.1:0"
[waf.admin]
listen = "127.0.0.1:0"
token = "a-token-for-tests-only"
[waf.proxy]
drain_seconds = 0
[waf.wasm]
golden = []
[waf.wasm.reload]
auto_reload_on_file_change = true
max_reload_frequency_seconds = 0
timeout_seconds = 300
[waf.wasm.limits]
deadline_milliseconds = 1000
[waf.wasm.probation]
min_calls = 1000000
"#;

fn merge(into: &mut Table, changes: Table) {
    for (key, value) in changes {
        match (into.get_mut(&key), value) {
            (Some(Toml::Table(old)), Toml::Table(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// Replaces a file as a whole.
pub fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("tmp");
    std::fs::write(&new, bytes).expect("a file");
    std::fs::rename(new, path).expect("a file");
}

impl Node {
    /// A node with a module, as tests usually want it.
    pub fn start(module: &Module) -> Node {
        Node::configured(module, "")
    }

    /// The same, with changes to its configuration.
    pub fn configured(module: &Module, changes: &str) -> Node {
        Folder::new(module, changes).start()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash would, and leaves its folder.
    pub fn kill(mut self) -> Folder {
        self.child.kill().expect("to be killed");
        self.child.wait().expect("its end");
        let Node { folder, .. } = &mut self;
        let config = std::mem::take(&mut folder.config);
        let folder = std::mem::replace(&mut folder.folder, tempfile::tempdir().expect("a folder"));
        Folder { folder, config }
    }

    /// Asks it to stop, and waits for its end.
    #[cfg(unix)]
    pub fn stop(&mut self) -> std::process::ExitStatus {
        let done = Command::new("kill").arg(self.id().to_string()).status().expect("kill");
        assert!(done.success());
        self.ended()
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("its end")
    }

    pub async fn get(&self, target: &str) -> Answer {
        get(self.data, target).await
    }

    pub async fn admin(&self, target: &str) -> Value {
        get(self.admin, target).await.json()
    }

    pub async fn version(&self) -> Value {
        self.admin("/api/v1/wasm/version").await
    }

    /// Uploads bytes as the module.
    pub async fn upload(&self, bytes: &[u8]) -> Answer {
        request(self.admin, Method::POST, "/api/v1/wasm/reload")
            .token(TOKEN)
            .form(&[("name", None, b"universal-waf"), ("file", Some("universal-waf.wasm"), bytes)])
            .send()
            .await
    }

    /// The value of a line of `/metrics` that begins like this.
    pub async fn metric(&self, line: &str) -> f64 {
        let metrics = get(self.admin, "/metrics").await;
        let value =
            metrics.text().lines().find(|other| other.starts_with(line)).and_then(|line| line.split(' ').next_back());
        value.expect("the line").parse().expect("a number")
    }

    pub async fn roll_back(&self) -> Answer {
        request(self.admin, Method::POST, "/api/v1/wasm/rollback").token(TOKEN).send().await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

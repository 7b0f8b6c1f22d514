//! What can be said on the command line. It goes before what the configuration file says.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use hotslot::BoxError;
use toml::{Spanned, Table};

use crate::config::{AdminToken, Config};
use crate::fleet::{Membership, demo, load, orchestrator, region};
use crate::listen::Address;
use crate::replace_file::replace_file;
use crate::upstream::Upstream;

/// A reverse proxy whose firewall rules are a WebAssembly module, replaced while it serves.
///
/// With no configuration at all it stands in front of a demo upstream of its own.
#[derive(Parser)]
#[command(name = "waf", version, args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub node: NodeOptions,
}

/// What else it can be.
#[derive(Subcommand)]
pub enum Command {
    /// A node of a fleet: serves what its orchestrator rolls out
    Node {
        #[command(flatten)]
        options: NodeOptions,
        #[command(flatten)]
        membership: Membership,
    },
    /// Leads a fleet: takes releases and rules, and rolls them out over NATS
    Orchestrator(orchestrator::Options),
    /// Puts rule files in SecLang, what they include and their data files into one text: the rules of the engine seclang-waf
    BundleRules(BundleOptions),
    /// Shows a fleet on this machine: NATS, an orchestrator, three nodes and some traffic
    FleetDemo(demo::Options),
    /// Measures rollouts over many nodes on this machine, without their proxies
    FleetLoad(load::Options),
    /// Has the NATS servers of a region keep copies of what its nodes read
    Region(region::Options),
}

/// What goes into a bundle of rules.
#[derive(Args)]
pub struct BundleOptions {
    /// Rule files, or folders with files *.conf, in the order in which they hold
    #[arg(required = true)]
    paths: Vec<PathBuf>,

    /// Where the bundle goes [default: the standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl BundleOptions {
    /// Makes the bundle.
    pub fn run(&self) -> Result<(), BoxError> {
        let text = waf_rule_bundle::collect(&self.paths)?;
        match &self.output {
            Some(file) => {
                replace_file(file, text.as_bytes()).map_err(|error| format!("{}: {error}", file.display()))?
            }
            None => std::io::stdout().write_all(text.as_bytes())?,
        }
        Ok(())
    }
}

/// The options of a node.
#[derive(Clone, Args)]
pub struct NodeOptions {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Checks the configuration, the module with the golden requests, and the rule file, and ends
    #[arg(long)]
    pub check: bool,

    /// Stands in front of a demo upstream of its own if no other one is configured
    #[arg(long)]
    demo: bool,

    /// Where requests go: http://HOST, https://HOST or h2c://HOST
    #[arg(long, value_name = "URL")]
    upstream: Option<Upstream>,

    /// Where requests come in [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,

    /// Where the admin API and its page are [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<Address>,

    /// The folder in which the node keeps what it must not forget [default: waf-data]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,

    /// The module with the rules; if the configuration lists modules, one that is asked before them
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,

    /// The admin token; better set in the environment, where others do not see it. `none` asks for none, on loopback only
    #[arg(long, value_name = "TOKEN", env = "WAF_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<AdminToken>,
}

impl NodeOptions {
    /// The configuration with what was said here in it.
    pub fn config(self) -> Result<Config, BoxError> {
        let mut config = self.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
        config.upstream = self.upstream.or(config.upstream);
        config.listen = self.listen.unwrap_or(config.listen);
        config.admin.listen = self.admin.unwrap_or(config.admin.listen);
        config.admin.token = self.token.map(|token| Spanned::new(0..0, token)).or(config.admin.token);
        config.data = self.data.unwrap_or(config.data);
        if let Some(module) = self.module {
            config.wasm.module = module;
            config.wasm.names_module = true;
        }
        let has_upstream = config.upstream.is_some() || !config.upstreams.is_empty() || !config.sites.is_empty();
        config.demo = !has_upstream && (self.demo || self.config.is_none());
        if !has_upstream && !config.demo {
            return Err(
                "no upstream is configured: set `upstream` in [waf], or say --demo for one to try things on".into()
            );
        }
        // What was said here has no line.
        config.check().map_err(|(_, problem)| problem)?;
        Ok(config)
    }

    /// Returns the path of the configuration file.
    pub fn config_file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// What the configuration file says, without what was said here.
    pub fn table(&self) -> Result<Table, BoxError> {
        let Some(path) = &self.config else { return Ok(Table::new()) };
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(toml::from_str(&text)?)
    }
}

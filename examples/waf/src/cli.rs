//! What can be said on the command line. It goes before what the configuration file says.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use hotslot::BoxError;
use toml::Spanned;

use crate::config::{AdminToken, Config};
use crate::upstream::Upstream;

/// A reverse proxy whose firewall rules are a WebAssembly module, replaced while it serves.
///
/// With no argument it stands in front of a demo upstream of its own.
#[derive(Parser)]
#[command(name = "waf", version)]
pub struct Options {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where requests go: http://HOST, https://HOST or h2c://HOST
    #[arg(long, value_name = "URL")]
    upstream: Option<Upstream>,

    /// Where requests come in [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,

    /// Where the admin API and its page are [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,

    /// The folder in which the node keeps what it must not forget [default: waf-data]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,

    /// The module with the rules
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,

    /// The admin token; better set in the environment, where others do not see it. `none` asks for none, on loopback only
    #[arg(long, value_name = "TOKEN", env = "WAF_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<AdminToken>,
}

impl Options {
    /// The configuration with what was said here in it.
    pub fn config(self) -> Result<Config, BoxError> {
        let mut config = self.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
        config.upstream = self.upstream.or(config.upstream);
        config.listen = self.listen.unwrap_or(config.listen);
        config.admin.listen = self.admin.unwrap_or(config.admin.listen);
        config.admin.token = self.token.map(|token| Spanned::new(0..0, token)).or(config.admin.token);
        config.data = self.data.unwrap_or(config.data);
        config.wasm.module = self.module.unwrap_or(config.wasm.module);
        // What was said here has no line.
        config.check().map_err(|(_, problem)| problem)?;
        Ok(config)
    }
}

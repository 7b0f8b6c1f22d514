//! The configuration: a TOML file in which every mistake is named with its line, and a default for everything.

mod defaults;
mod modules;
mod trust;
mod values;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use hotslot::BoxError;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use waf_interface::Verdict;

pub use self::modules::Module;
pub use self::trust::Trust;
pub use self::values::{AdminToken, Milliseconds, Seconds, Share, Token, some_time};
use self::values::{
    body_cap, calls, digest, memory, path, some, some_count, some_milliseconds, uses, verdict, versions,
};

use crate::admin::Role;
use crate::listen::{Address, Source};
use crate::log::Log;
use crate::net::{Network, Networks};
use crate::policy::{self, Denied, HostPattern, Mode, Place, Policy};
use crate::rate;
use crate::trial;
use crate::upstream::Upstream;

/// What the file may say.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    waf: Config,
}

/// How the node is to behave.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where requests come in.
    pub listen: SocketAddr,
    /// Where they go.
    pub upstream: Option<Upstream>,
    /// More than one of them.
    pub upstreams: Vec<Upstream>,
    /// Hosts with upstreams of their own.
    pub sites: Vec<Spanned<Site>>,
    pub health: Health,
    /// The folder in which the node keeps what it must not forget.
    pub data: PathBuf,
    /// Whether requests go to the demo upstream. The file does not say.
    #[serde(skip)]
    pub demo: bool,
    pub failure_policy: Spanned<FailurePolicy>,
    /// What becomes of what cannot be inspected.
    pub uninspected: Uninspected,
    /// Whether verdicts are enforced.
    pub mode: Mode,
    /// Where they are not, or those of one rule are not.
    pub detect: Vec<Spanned<Place>>,
    /// From which rules which parts of which requests are excepted.
    pub exceptions: Vec<Spanned<Place>>,
    /// Requests that are not inspected.
    pub allow: Vec<Spanned<Place>>,
    /// Requests that are refused.
    pub deny: Vec<Spanned<Place>>,
    /// Files with networks whose requests are refused.
    pub deny_lists: Vec<PathBuf>,
    /// How many requests there may be.
    pub rate_limits: Vec<rate::Terms>,
    /// With TLS, if it is set.
    pub tls: Option<Tls>,
    pub log: Log,
    pub proxy: Proxy,
    pub admin: Admin,
    pub wasm: Wasm,
    pub native: Native,
    pub rules: Rules,
    pub archive: Archive,
    pub trust: Trust,
    /// How versions are tried on traffic.
    pub trial: trial::Terms,
}

/// What becomes of a request on which the rules gave no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// It is answered with 503.
    Closed,
    /// It is let through, and logged. Needs the setting `uninspected = "log"`, because clients can choose what has no verdict.
    Open,
    /// The last version that did not fail gives the verdict; without one it is answered with 503.
    LastGood,
}

/// What becomes of a request, or of the part of it, that cannot be inspected: a body that goes on behind the part that is held
/// back, encodings that are not known, what is over the rules' limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Uninspected {
    #[default]
    Block,
    Challenge,
    Log,
}

impl From<Uninspected> for Verdict {
    fn from(uninspected: Uninspected) -> Verdict {
        match uninspected {
            Uninspected::Block => Verdict::Block,
            Uninspected::Challenge => Verdict::Challenge,
            Uninspected::Log => Verdict::Log,
        }
    }
}

/// Hosts that belong together.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    pub hosts: Vec<HostPattern>,
    pub upstreams: Vec<Upstream>,
    #[serde(default)]
    pub mode: Mode,
    /// For clients that name one of the hosts in their TLS handshake.
    pub tls: Option<Tls>,
    /// What its upstreams are asked for, in the place of what is in `[waf.health]`.
    #[serde(default, deserialize_with = "path")]
    pub health_path: Option<String>,
}

/// When an upstream gets no more requests, and when it does again.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// What they are asked for. They are not asked if it is not set.
    #[serde(deserialize_with = "path")]
    pub path: Option<String>,
    #[serde(rename = "interval_seconds", deserialize_with = "some_time")]
    pub interval: Seconds,
    #[serde(rename = "timeout_seconds", deserialize_with = "some_time")]
    pub timeout: Seconds,
    /// After so many bad answers in a row.
    #[serde(deserialize_with = "some_count")]
    pub unhealthy_after: u32,
    /// After so many good ones.
    #[serde(deserialize_with = "some_count")]
    pub healthy_after: u32,
    /// After so many requests in a row without an answer.
    #[serde(deserialize_with = "some_count")]
    pub eject_after: u32,
    /// For so long the first time, and longer each time that follows.
    #[serde(rename = "eject_seconds")]
    pub eject: Seconds,
}

/// The data plane.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proxy {
    /// So much of a body is held back and shown to the rules.
    #[serde(deserialize_with = "body_cap")]
    pub inspect_body_bytes: usize,
    #[serde(deserialize_with = "some")]
    pub max_connections: usize,
    #[serde(rename = "header_timeout_seconds", deserialize_with = "some_time")]
    pub header_timeout: Seconds,
    /// By when the part of a body that is shown to the rules has to be there.
    #[serde(rename = "body_timeout_seconds", deserialize_with = "some_time")]
    pub body_timeout: Seconds,
    #[serde(rename = "connect_timeout_seconds", deserialize_with = "some_time")]
    pub connect_timeout: Seconds,
    /// By when the upstream has to begin its answer, from when the request was sent or last went on.
    #[serde(rename = "response_timeout_seconds", deserialize_with = "some_time")]
    pub response_timeout: Seconds,
    /// How long a client may take to read what was sent to it.
    #[serde(rename = "send_timeout_seconds", deserialize_with = "some_time")]
    pub send_timeout: Seconds,
    /// Whose word of a client's address counts.
    pub trusted_proxies: Vec<Network>,
    /// For how long the node says that it is not ready, and serves on, when it is asked to stop.
    #[serde(rename = "drain_seconds")]
    pub drain: Seconds,
    /// How long requests and websockets that are under way may take when the node stops.
    #[serde(rename = "shutdown_timeout_seconds")]
    pub shutdown_timeout: Seconds,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Who may do something over the admin API.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedToken {
    /// How it is called in the audit log.
    pub name: String,
    pub role: Role,
    pub token: Option<Token>,
    /// The BLAKE3 digest of the token, as `b3sum` prints it, in the place of the token.
    #[serde(default, deserialize_with = "digest")]
    pub hash: Option<[u8; 32]>,
}

/// The admin listener.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    pub listen: Address,
    pub tls: Option<Tls>,
    /// More tokens, each with a role.
    pub tokens: Vec<Spanned<NamedToken>>,
    /// Whether what changes nothing can be asked for without a token.
    pub open_reads: bool,
    /// What a request that changes something has to bring. Generated at the first start if not set.
    pub token: Option<Spanned<AdminToken>>,
    /// Names by which the listener may be called, besides addresses and localhost.
    pub hosts: Vec<String>,
    #[serde(deserialize_with = "some")]
    pub max_upload_bytes: usize,
    #[serde(rename = "upload_timeout_seconds", deserialize_with = "some_time")]
    pub upload_timeout: Seconds,
}

/// The modules, and how they are run and replaced.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wasm {
    pub module: PathBuf,
    /// Whether somebody has named it, so that it runs before those that are listed.
    #[serde(skip)]
    pub names_module: bool,
    /// Modules with settings of their own.
    pub modules: Vec<Spanned<Module>>,
    /// Whether the module can be replaced at all while the node runs.
    pub hot_reload_enabled: bool,
    #[serde(deserialize_with = "versions")]
    pub keep_previous_versions: usize,
    /// Whether a new module has to pass the samples before it serves. Its format is always checked.
    pub validate_before_reload: bool,
    pub reload: Reload,
    pub limits: Limits,
    pub probation: Probation,
    /// Requests with the verdict that a module has to give on them.
    pub golden: Vec<Sample>,
}

/// Libraries beside modules.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Native {
    /// Whether they are taken at all: a library can do whatever the node can, and no limit holds for it.
    pub enabled: bool,
}

#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reload {
    /// Whether the module and the rule file are watched.
    pub auto_reload_on_file_change: bool,
    /// The least time between two reloads.
    #[serde(rename = "max_reload_frequency_seconds")]
    pub min_interval: Seconds,
    #[serde(rename = "timeout_seconds", deserialize_with = "some_time")]
    pub timeout: Seconds,
}

/// What one call of the module may use.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    #[serde(rename = "deadline_milliseconds", deserialize_with = "some_milliseconds")]
    pub deadline: Milliseconds,
    /// What `create` may take when a version is loaded; the call's deadline if that is longer.
    #[serde(rename = "load_deadline_milliseconds", deserialize_with = "some_milliseconds")]
    pub load_deadline: Milliseconds,
    #[serde(deserialize_with = "memory")]
    pub memory_bytes: usize,
    /// How many calls run at the same time; one more is a failure, and the failure policy decides.
    #[serde(deserialize_with = "calls")]
    pub concurrent_calls: NonZeroUsize,
    /// After so many calls an instance of the module is thrown away. With 1 every request meets a fresh one.
    #[serde(deserialize_with = "uses")]
    pub calls_per_instance: u32,
    /// Whether `create` runs once for a version, and its instances start from a snapshot of what it made. If not set: where
    /// every request meets a fresh instance.
    pub create_once: Option<bool>,
}

/// For how long a new version is watched, and what it may not do in that time.
#[derive(Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Probation {
    #[serde(rename = "seconds")]
    pub window: Seconds,
    /// The share of calls that may fail.
    pub max_error_rate: Share,
    /// What 99 of 100 calls have to stay below. Not judged if not set: how long a call takes is up to the clients, too.
    #[serde(rename = "max_latency_milliseconds")]
    pub max_latency: Option<Milliseconds>,
    /// Nothing is judged before so many calls.
    pub min_calls: u64,
    /// How many failed requests at once are put to the version before, too. With 0, whatever fails counts.
    pub second_opinions: usize,
}

/// A request, and the verdict that is expected of it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    pub name: String,
    #[serde(default = "get")]
    pub method: String,
    pub target: String,
    #[serde(default)]
    pub headers: HashMap<String, String>,
    #[serde(default)]
    pub body: String,
    #[serde(deserialize_with = "verdict")]
    pub verdict: u32,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// The rule file; `waf-config.json` in the data folder if not set.
    pub file: Option<PathBuf>,
}

/// Where every version is kept that served.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Archive {
    /// A folder; `archive` in the data folder if neither this nor `s3` is set.
    pub folder: Option<PathBuf>,
    pub s3: Option<Spanned<S3>>,
}

/// A bucket of a store that speaks S3. What is not set comes from the usual `AWS_…` variables.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    pub bucket: String,
    #[serde(default)]
    pub prefix: String,
    pub region: Option<String>,
    pub endpoint: Option<String>,
    /// Whether the endpoint may be reached without TLS.
    #[serde(default)]
    pub allow_http: bool,
}

fn get() -> String {
    "GET".to_owned()
}

impl Config {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Config, BoxError> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Config::parse(&text).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    fn parse(text: &str) -> Result<Config, BoxError> {
        let mut config = toml::from_str::<File>(text)?.waf;
        modules::inherit(&mut config.wasm, text)?;
        config.check().map_err(|(at, problem)| {
            let line = text[..at].matches('\n').count() + 1;
            format!("line {line}: {problem}")
        })?;
        Ok(config)
    }

    /// What no single value gets wrong. Gives the place in the text and the problem.
    pub fn check(&self) -> Result<(), (usize, String)> {
        if *self.failure_policy.get_ref() == FailurePolicy::LastGood && self.wasm.keep_previous_versions == 0 {
            let problem = "the failure policy last_good needs keep_previous_versions of at least 1";
            return Err((self.failure_policy.span().start, problem.to_owned()));
        }
        if *self.failure_policy.get_ref() == FailurePolicy::Open && self.uninspected != Uninspected::Log {
            let problem =
                "the failure policy open lets through what no rules have seen: it needs uninspected = \"log\"";
            return Err((self.failure_policy.span().start, problem.to_owned()));
        }
        if let Some(token) = &self.admin.token
            && matches!(token.get_ref(), AdminToken::None)
            && (!self.admin.listen.is_local() || !self.admin.tokens.is_empty())
        {
            let problem = if self.admin.tokens.is_empty() {
                format!(
                    "token = \"none\" in [waf.admin] is for loopback or a Unix socket: on {} anybody could replace the rules",
                    self.admin.listen
                )
            } else {
                "token = \"none\" lets everybody do everything: take it or [[waf.admin.tokens]] out".to_owned()
            };
            return Err((token.span().start, problem));
        }
        for (number, token) in self.admin.tokens.iter().enumerate() {
            let (at, token) = (token.span().start, token.get_ref());
            if token.token.is_some() == token.hash.is_some() {
                return Err((at, format!("[[waf.admin.tokens]]: {} needs a `token` or its `hash`", token.name)));
            }
            if self.admin.tokens[..number].iter().any(|other| other.get_ref().name == token.name) {
                return Err((at, format!("[[waf.admin.tokens]]: there are two by the name {}", token.name)));
            }
        }
        if let Address::Tcp(admin) = self.admin.listen
            && admin == self.listen
            && admin.port() != 0
        {
            return Err((0, format!("listen: requests and the admin API cannot both be on {admin}")));
        }
        for site in &self.sites {
            let (at, site) = (site.span().start, site.get_ref());
            if site.hosts.is_empty() || site.upstreams.is_empty() {
                return Err((at, "[[waf.sites]]: a site needs `hosts` and `upstreams`".to_owned()));
            }
            if site.tls.is_some() && self.tls.is_none() {
                let problem = "[waf.sites.tls]: the listener speaks TLS only with [waf.tls], whose certificate is for all other hosts";
                return Err((at, problem.to_owned()));
            }
        }
        self.check_modules()?;
        policy::check("detect", &self.detect, false)?;
        policy::check("exceptions", &self.exceptions, true)?;
        policy::check("allow", &self.allow, false)?;
        policy::check("deny", &self.deny, false)?;
        match (&self.archive.folder, &self.archive.s3) {
            (Some(_), Some(s3)) => {
                Err((s3.span().start, "the archive is either a folder or in S3: take one of them out".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// What of the verdicts is enforced, and where. A site can be milder: see [`Sites`](crate::sites::Sites).
    pub fn policy(&self) -> Result<Policy, BoxError> {
        let places =
            |places: &[Spanned<Place>]| -> Vec<Place> { places.iter().map(|place| place.get_ref().clone()).collect() };
        let mut deny: Vec<_> = places(&self.deny).into_iter().map(|place| Denied { place, listed: None }).collect();
        for path in &self.deny_lists {
            let named = |line: String| format!("{}: {line}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
            let networks = Networks::parse(&text).map_err(|(line, error)| named(format!("line {line}: {error}")))?;
            deny.push(Denied { place: Place::default(), listed: Some(networks.into_iter().collect()) });
        }
        Ok(Policy {
            mode: self.mode,
            detect: places(&self.detect),
            exceptions: places(&self.exceptions),
            allow: places(&self.allow),
            deny,
        })
    }

    /// The certificates of the data listener, if it speaks TLS.
    pub fn certificates(&self) -> Option<Vec<Source>> {
        let source = |hosts: &[HostPattern], tls: &Tls| Source {
            hosts: hosts.to_vec(),
            certificate: tls.certificate.clone(),
            key: tls.key.clone(),
        };
        let own = self.tls.as_ref().map(|tls| source(&[], tls))?;
        let sites = self.sites.iter().map(Spanned::get_ref);
        let sites = sites.filter_map(|site| site.tls.as_ref().map(|tls| source(&site.hosts, tls)));
        Some(sites.chain([own]).collect())
    }

    /// The certificate of the admin listener, if it speaks TLS.
    pub fn admin_certificates(&self) -> Option<Vec<Source>> {
        let tls = self.admin.tls.as_ref()?;
        Some(vec![Source { hosts: Vec::new(), certificate: tls.certificate.clone(), key: tls.key.clone() }])
    }

    /// Where the rule file is.
    pub fn rule_file(&self) -> PathBuf {
        self.rules.file.clone().unwrap_or_else(|| self.data.join("waf-config.json"))
    }

    /// Where the archive is, if it is a folder.
    pub fn archive_folder(&self) -> PathBuf {
        self.archive.folder.clone().unwrap_or_else(|| self.data.join("archive"))
    }
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Upstream, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;

//! Sites: which upstreams stand behind which hosts, and which of them gets a request.

mod origin;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hotslot::BoxError;
use serde::Serialize;

pub use self::origin::{Origin, State};
use crate::config::{Config, Health};
use crate::policy::{HostPattern, Mode, Policy, bare};
use crate::upstream::Upstream;

/// The hosts of one owner, and what stands behind them.
pub struct Site {
    pub name: String,
    /// What holds for requests to it, with its own mode.
    pub policy: Arc<Policy>,
    hosts: Vec<HostPattern>,
    origins: Vec<Arc<Origin>>,
    next: AtomicUsize,
}

/// All sites. The first one that a host fits has it.
#[derive(Default)]
pub struct Sites(Vec<Site>);

impl Sites {
    /// Makes the sites of a configuration and its policy, with `demo` behind all hosts if the configuration names nothing else.
    /// Upstreams that stay keep their state and their connections. Must be called within the runtime.
    pub fn new(config: &Config, policy: Policy, demo: Option<&Upstream>, before: &Sites) -> Result<Sites, BoxError> {
        let watched = Arc::new(Policy { mode: Mode::Detect, ..policy.clone() });
        let policy = Arc::new(policy);
        let origins = |upstreams: &[Upstream], health: &Health| {
            let origin = |upstream: &Upstream| match before.origin(upstream, health) {
                Some(known) => Ok(known),
                None => Origin::start(upstream.clone(), health.clone(), config.proxy.connect_timeout.0),
            };
            upstreams.iter().map(origin).collect::<Result<Vec<_>, BoxError>>()
        };
        let mut sites = Vec::new();
        for site in &config.sites {
            let site = site.get_ref();
            let health =
                Health { path: site.health_path.clone().or(config.health.path.clone()), ..config.health.clone() };
            sites.push(Site {
                name: site.hosts[0].as_str().to_owned(),
                policy: Arc::clone(if site.mode == Mode::Detect { &watched } else { &policy }),
                hosts: site.hosts.clone(),
                origins: origins(&site.upstreams, &health)?,
                next: AtomicUsize::new(0),
            });
        }
        let demo = demo.filter(|_| config.demo);
        let others: Vec<Upstream> = config.upstream.iter().chain(&config.upstreams).chain(demo).cloned().collect();
        if !others.is_empty() {
            let origins = origins(&others, &config.health)?;
            let name = "default".to_owned();
            sites.push(Site { name, policy, hosts: Vec::new(), origins, next: AtomicUsize::new(0) });
        }
        Ok(Sites(sites))
    }

    fn origin(&self, upstream: &Upstream, health: &Health) -> Option<Arc<Origin>> {
        let mut origins = self.0.iter().flat_map(|site| &site.origins);
        origins.find(|origin| origin.is_for(upstream, health)).cloned()
    }

    /// Returns the site of a host.
    pub fn of(&self, host: &str) -> Option<&Site> {
        let name = bare(host);
        self.0.iter().find(|site| site.hosts.is_empty() || site.hosts.iter().any(|pattern| pattern.fits(&name)))
    }

    /// Says how the upstreams are.
    pub fn status(&self) -> Vec<SiteStatus> {
        let status = |site: &Site| SiteStatus {
            site: site.name.clone(),
            hosts: site.hosts.iter().map(|host| host.as_str().to_owned()).collect(),
            upstreams: site.origins.iter().map(|origin| origin.state()).collect(),
        };
        self.0.iter().map(status).collect()
    }
}

/// A site, and how its upstreams are.
#[derive(Default, Serialize)]
pub struct SiteStatus {
    site: String,
    hosts: Vec<String>,
    pub upstreams: Vec<State>,
}

impl Site {
    /// Returns the upstream that gets the next request: those that are well take turns. If none is, all of them do: one that
    /// is said to be ill may still answer, and nothing else will.
    pub fn choose(&self) -> Option<Arc<Origin>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let from = |offset: usize| &self.origins[(turn + offset) % self.origins.len()];
        let well = (0..self.origins.len()).map(from).find(|origin| origin.is_well());
        // Once in a while one that was ejected is tried again, because its time is over: see `Origin::is_well`.
        well.or_else(|| (!self.origins.is_empty()).then(|| from(0))).cloned()
    }
}

//! The configuration, read again while the node serves: what can change between two requests does, and the rest is named.

use std::collections::BTreeMap;
use std::sync::Arc;

use hotslot::BoxError;
use parking_lot::{Mutex, RwLock};
use toml::{Table, Value};

use crate::admin::Tokens;
use crate::chain::Chain;
use crate::cli::NodeOptions;
use crate::config::{AdminToken, Config};
use crate::deploy::{Deployments, set_mild_rules};
use crate::listen::{Address, Certificates, Read};
use crate::proxy::Proxy;
use crate::token;

/// What takes effect without a restart, with everything below it.
const LIVE: &[&str] = &[
    "waf.mode",
    "waf.detect",
    "waf.exceptions",
    "waf.allow",
    "waf.deny",
    "waf.deny_lists",
    "waf.rate_limits",
    "waf.uninspected",
    "waf.upstream",
    "waf.upstreams",
    "waf.sites",
    "waf.health",
    "waf.admin.token",
    "waf.admin.tokens",
    "waf.admin.open_reads",
    "waf.proxy.inspect_body_bytes",
    "waf.proxy.body_timeout_seconds",
    "waf.proxy.response_timeout_seconds",
    "waf.proxy.trusted_proxies",
    "waf.trial.sticky",
];

pub struct Settings {
    options: NodeOptions,
    /// What the node was started with: of what needs a restart, this is in effect.
    started: Config,
    /// What is in effect, or waits for a restart since it was read.
    read: Mutex<Table>,
    /// What was read last.
    text: Mutex<Table>,
    parts: Parts,
    /// Whether a fleet says what serves.
    is_managed: bool,
}

/// What takes the configuration up.
pub struct Parts {
    pub modules: Chain<Deployments>,
    pub proxy: Arc<Proxy>,
    pub tokens: Arc<RwLock<Arc<Tokens>>>,
    /// Those of the two listeners, if they speak TLS.
    pub certificates: Option<Arc<Certificates>>,
    pub admin_certificates: Option<Arc<Certificates>>,
}

/// What came of reading the configuration again.
#[derive(Debug, Default)]
pub struct Changed {
    /// Keys that are in effect with other values.
    pub changed: Vec<String>,
    /// Keys that have other values, and keep their effect until the node is started again.
    pub needs_restart: Vec<String>,
    /// Why, where the key alone does not say.
    pub why: BTreeMap<&'static str, String>,
}

/// The key of the modules that are listed.
const MODULES: &str = "waf.wasm.modules";

impl Settings {
    /// Remembers what the node was started with, and what was read of it.
    pub fn new(options: NodeOptions, started: Config, read: Table, parts: Parts, is_managed: bool) -> Settings {
        Settings { options, started, text: Mutex::new(read.clone()), read: Mutex::new(read), parts, is_managed }
    }

    /// Returns whether the file says something else than when it was last read, or cannot be read.
    pub fn has_changed(&self) -> bool {
        self.options.table().map_or(true, |table| table != *self.text.lock())
    }

    /// Reads the configuration again, and module and rule file with it, unless a fleet says what serves. An error changes
    /// nothing. Must be called within the runtime, and not on one of its workers.
    pub fn reload(&self) -> Result<Changed, BoxError> {
        let mut read = self.read.lock();
        let (config, table) = (self.options.clone().config()?, self.options.table()?);
        let Parts { modules, proxy, tokens, certificates, admin_certificates } = &self.parts;
        // First everything that can fail.
        let set = config.admin.token.clone().map(toml::Spanned::into_inner);
        check_token(set.as_ref(), &self.started.admin.listen)?;
        let (own, _) = token::open(set, &self.started.data)?;
        let policy = config.policy()?;
        let mild = policy.mild_rules();
        let mut read_certificates = Vec::new();
        for (served, sources) in
            [(certificates, config.certificates()), (admin_certificates, config.admin_certificates())]
        {
            if let (Some(served), Some(sources)) = (served, sources) {
                read_certificates.push((served, Read::of(sources)?));
            }
        }
        let prepared = proxy.prepare(&config, policy)?;
        let mut roots = Vec::new();
        for trust in modules.iter().filter_map(|module| module.trust()) {
            roots.push((trust, trust.read_root()?));
        }
        // It may fail, for want of disk: then nothing else has changed either.
        roots.into_iter().try_for_each(|(trust, root)| trust.follow(root))?;
        // Then what cannot.
        read_certificates.into_iter().for_each(|(served, read)| served.take_up(read));
        proxy.take_up(prepared);
        *tokens.write() = Arc::new(Tokens::new(own.as_ref(), &config.admin));
        set_mild_rules(modules, mild);
        self.text.lock().clone_from(&table);
        let mut keys = Vec::new();
        compare(&mut keys, "", &Value::Table(read.clone()), &Value::Table(table.clone()));
        let under = |key: &str, section: &str| key == section || key.starts_with(&format!("{section}."));
        // A listener does not begin to speak TLS, or end it.
        let tls = [
            ("waf.tls", certificates.is_some() && config.tls.is_some()),
            ("waf.admin.tls", admin_certificates.is_some() && config.admin.tls.is_some()),
        ];
        let is_live = |key: &String| {
            LIVE.iter().any(|live| under(key, live)) || tls.iter().any(|(section, live)| *live && under(key, section))
        };
        let (changed, needs_restart): (Vec<_>, Vec<_>) = keys.into_iter().partition(is_live);
        // What waits for a restart is named again the next time.
        let kept = needs_restart.iter().fold(table, |table, key| with_value_of(table, &read, key));
        *read = kept;
        let mut why = BTreeMap::new();
        if needs_restart.iter().any(|key| key == MODULES) {
            why.insert(MODULES, self.why_modules_stay(&config)?);
        }
        self.take_up_files();
        tracing::info!(?changed, ?needs_restart, ?why, "the configuration was read again");
        Ok(Changed { changed, needs_restart, why })
    }

    /// Says what another configuration changes about the modules, and why they stay as they are.
    fn why_modules_stay(&self, config: &Config) -> Result<String, BoxError> {
        let names =
            |config: &Config| Ok::<_, BoxError>(config.modules()?.into_iter().map(|module| module.name).collect());
        let (was, is): (Vec<String>, Vec<String>) = (names(&self.started)?, names(config)?);
        let only = |one: &[String], other: &[String]| {
            let only: Vec<_> = one.iter().filter(|name| !other.contains(name)).cloned().collect();
            only.join(", ")
        };
        let stays = |one: &[String], other: &[String]| -> Vec<String> {
            one.iter().filter(|name| other.contains(name)).cloned().collect()
        };
        let mut differences = Vec::new();
        for (what, names) in [("added", only(&is, &was)), ("taken out", only(&was, &is))] {
            if !names.is_empty() {
                differences.push(format!("{what}: {names}"));
            }
        }
        if stays(&was, &is) != stays(&is, &was) {
            differences.push("another order".to_owned());
        }
        if differences.is_empty() {
            differences.push("other settings".to_owned());
        }
        let differences = differences.join("; ");
        Ok(format!(
            "{differences}. Modules are opened when the node starts, and run in that order until it is started again"
        ))
    }

    /// One module does not wait for another one's time.
    fn take_up_files(&self) {
        if self.is_managed {
            return;
        }
        std::thread::scope(|scope| {
            for module in self.parts.modules.iter() {
                scope.spawn(|| module.take_up_files());
            }
        });
    }
}

/// Whether what the admin API is to ask for suits the listener that it has, whatever the configuration says of the next one.
fn check_token(set: Option<&AdminToken>, listen: &Address) -> Result<(), BoxError> {
    if matches!(set, Some(AdminToken::None)) && !listen.is_local() {
        let problem = format!(
            "token = \"none\" in [waf.admin] is for loopback or a Unix socket, and the admin API is on {listen} until the node is \
             started again"
        );
        return Err(problem.into());
    }
    Ok(())
}

/// The keys whose values differ.
fn compare(keys: &mut Vec<String>, key: &str, was: &Value, is: &Value) {
    let (Value::Table(old), Value::Table(new)) = (was, is) else {
        if was != is {
            keys.push(key.to_owned());
        }
        return;
    };
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    let empty = Value::Table(Table::new());
    for (name, value) in new {
        match old.get(name) {
            Some(old) => compare(keys, &below(name), old, value),
            // A section that was not there is compared key by key.
            None if value.is_table() => compare(keys, &below(name), &empty, value),
            None => keys.push(below(name)),
        }
    }
    for (name, value) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
        match value {
            Value::Table(_) => compare(keys, &below(name), value, &empty),
            _ => keys.push(below(name)),
        }
    }
}

/// A table with the value that a key has in another one.
fn with_value_of(mut table: Table, other: &Table, key: &str) -> Table {
    let (head, rest) = key.split_once('.').map_or((key, None), |(head, rest)| (head, Some(rest)));
    match (rest, other.get(head)) {
        (None, Some(value)) => drop(table.insert(head.to_owned(), value.clone())),
        (None, None) => drop(table.remove(head)),
        (Some(rest), below) => {
            let empty = Table::new();
            let below = below.and_then(Value::as_table).unwrap_or(&empty);
            let own = match table.remove(head) {
                Some(Value::Table(own)) => own,
                _ => Table::new(),
            };
            table.insert(head.to_owned(), Value::Table(with_value_of(own, below, rest)));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_given_up_only_on_a_listener_that_is_local() {
        let (none, secret) = (AdminToken::None, "0123456789abcdef".parse::<AdminToken>().ok());
        let to_all = Address::Tcp(([0, 0, 0, 0], 9090).into());
        let local = Address::Tcp(([127, 0, 0, 1], 9090).into());
        assert!(check_token(Some(&none), &to_all).unwrap_err().to_string().contains("started again"));
        assert!(check_token(Some(&none), &local).is_ok());
        assert!(check_token(secret.as_ref(), &to_all).is_ok() && check_token(None, &to_all).is_ok());
    }

    #[test]
    fn keys_that_differ_are_named() {
        let table = |text: &str| toml::from_str::<Table>(text).unwrap();
        let was =
            table("[waf]\nlisten = \"a\"\nmode = \"detect\"\n[waf.proxy]\nx = 1\ny = 2\n[[waf.sites]]\nhosts = []");
        let is = table("[waf]\nlisten = \"b\"\nmode = \"detect\"\n[waf.proxy]\nx = 1\n[waf.new]\nz = 1");
        let mut keys = Vec::new();
        compare(&mut keys, "", &Value::Table(was.clone()), &Value::Table(is.clone()));
        keys.sort();
        assert_eq!(keys, ["waf.listen", "waf.new.z", "waf.proxy.y", "waf.sites"]);
        let kept = with_value_of(with_value_of(is, &was, "waf.listen"), &was, "waf.proxy.y");
        assert_eq!(kept["waf"]["listen"].as_str(), Some("a"));
        assert_eq!(kept["waf"]["proxy"]["y"].as_integer(), Some(2));
        assert!(kept["waf"].get("sites").is_none());
    }
}

//! What holds where the configuration says nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::{
    Admin, Archive, Config, FailurePolicy, Health, Limits, Milliseconds, Native, Probation, Proxy, Reload, Rules,
    Sample, Seconds, Share, Trust, Uninspected, Wasm, get,
};
use crate::listen::Address;
use crate::log::Log;
use crate::policy::Mode;
use crate::trial;

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            upstream: None,
            upstreams: Vec::new(),
            sites: Vec::new(),
            health: Health::default(),
            data: PathBuf::from("waf-data"),
            demo: false,
            failure_policy: Spanned::new(0..0, FailurePolicy::Closed),
            uninspected: Uninspected::default(),
            mode: Mode::default(),
            detect: Vec::new(),
            exceptions: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            deny_lists: Vec::new(),
            rate_limits: Vec::new(),
            tls: None,
            log: Log::default(),
            proxy: Proxy::default(),
            admin: Admin::default(),
            wasm: Wasm::default(),
            native: Native::default(),
            rules: Rules::default(),
            archive: Archive::default(),
            trust: Trust::default(),
            trial: trial::Terms::default(),
        }
    }
}

impl Default for Health {
    fn default() -> Health {
        Health {
            path: None,
            interval: Seconds::whole(5),
            timeout: Seconds::whole(2),
            unhealthy_after: 3,
            healthy_after: 2,
            eject_after: 5,
            eject: Seconds::whole(10),
        }
    }
}

impl Default for Proxy {
    fn default() -> Proxy {
        Proxy {
            inspect_body_bytes: 64 << 10,
            max_connections: 10_000,
            header_timeout: Seconds::whole(10),
            body_timeout: Seconds::whole(10),
            connect_timeout: Seconds::whole(5),
            response_timeout: Seconds::whole(60),
            send_timeout: Seconds::whole(30),
            trusted_proxies: Vec::new(),
            drain: Seconds::whole(5),
            shutdown_timeout: Seconds::whole(10),
        }
    }
}

impl Default for Admin {
    fn default() -> Admin {
        Admin {
            listen: Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 9090))),
            tls: None,
            tokens: Vec::new(),
            open_reads: true,
            token: None,
            hosts: Vec::new(),
            max_upload_bytes: 8 << 20,
            upload_timeout: Seconds::whole(30),
        }
    }
}

impl Default for Wasm {
    fn default() -> Wasm {
        Wasm {
            module: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/rules/universal-waf.wasm")),
            names_module: false,
            modules: Vec::new(),
            hot_reload_enabled: true,
            keep_previous_versions: 2,
            validate_before_reload: true,
            reload: Reload::default(),
            limits: Limits::default(),
            probation: Probation::default(),
            golden: golden(),
        }
    }
}

impl Default for Reload {
    fn default() -> Reload {
        Reload { auto_reload_on_file_change: false, min_interval: Seconds::whole(10), timeout: Seconds::whole(30) }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            deadline: Milliseconds(Duration::from_millis(50)),
            load_deadline: Milliseconds(Duration::from_secs(5)),
            memory_bytes: 16 << 20,
            concurrent_calls: const { NonZeroUsize::new(64).unwrap() },
            calls_per_instance: 1000,
            create_once: None,
        }
    }
}

impl Default for Probation {
    fn default() -> Probation {
        Probation {
            window: Seconds::whole(30),
            max_error_rate: Share(0.05),
            max_latency: None,
            min_calls: 20,
            second_opinions: 4,
        }
    }
}

/// What any rules worth serving can tell apart.
fn golden() -> Vec<Sample> {
    let sample = |name: &str, target: &str, verdict| Sample {
        name: name.to_owned(),
        method: get(),
        target: target.to_owned(),
        headers: HashMap::from([
            ("host".to_owned(), "example.com".to_owned()),
            (
                "user-agent".to_owned(),
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".to_owned(),
            ),
            ("accept".to_owned(), "text/html".to_owned()),
        ]),
        body: String::new(),
        verdict,
    };
    vec![
        sample("an ordinary page", "/products?category=garden&page=2", 0),
        sample("an SQL injection", "/products?id=1%27%20UNION%20SELECT%20password%20FROM%20users--", 1),
        sample("a script in a parameter", "/search?q=%3Cscript%3Ealert(1)%3C/script%3E", 1),
    ]
}

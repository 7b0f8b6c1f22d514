//! A firewall that changes its rules while it serves: `cargo run -p waf`.
//!
//! Requests come in through [`mod@serve`], pass the [`proxy`], which asks the [`guard`] about each, which asks one
//! module after another: [`rules`], each in a slot of its own. [`deploy`] is everything that changes what serves; [`admin`] and [`watch`] call it.
#![deny(unsafe_code)]
#![allow(unreachable_pub, reason = "a program has nobody outside")]

mod activity;
mod admin;
mod archive;
mod body;
mod chain;
mod cli;
mod config;
mod demo;
mod deploy;
mod fleet;
mod guard;
mod hold;
mod impatient;
mod json;
mod life;
mod listen;
mod live;
mod log;
mod metrics;
mod net;
mod policy;
mod proxy;
mod rate;
mod readable;
mod release;
mod replace_file;
mod request_id;
mod rule_file;
mod rules;
mod serve;
mod sites;
mod token;
mod trial;
mod trust;
mod upstream;
mod version;
mod watch;
mod without;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use hotslot::{BoxError, escape_untrusted};
use notify::RecommendedWatcher;
use parking_lot::RwLock;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch::channel;
use toml::Table;

use self::admin::{Admin, Audit, Tokens};
use self::chain::{Chain, Named};
use self::cli::{Command, NodeOptions, Options};
use self::config::Config;
use self::deploy::Deployments;
use self::fleet::Membership;
use self::guard::Guard;
use self::life::{Parts, Settings, Signal, Signals};
use self::listen::{Address, Certificates, Listener};
use self::live::Traffic;
use self::metrics::Metrics;
use self::proxy::Proxy;
use self::release::Release;
use self::rules::Engine;
use self::serve::{Terms, serve};

/// What a worker of the runtime has on its stack beside the rules, which may use 256 KiB of it.
const WORKER_STACK: usize = 4 << 20;

fn main() -> ExitCode {
    // A library that crashes or hangs when it is loaded does so in a child of this program, which does not get past this line.
    hotslot::native::rehearsal_point();
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("waf: {}", printable_lines(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), BoxError> {
    match options.command {
        None => run_node(options.node, None),
        Some(Command::Node { options, membership }) => run_node(options, Some(membership)),
        Some(Command::Orchestrator(options)) => run_async(fleet::orchestrator::run(options, Signals::first())),
        Some(Command::FleetLoad(options)) => fleet::load::run(&options),
        Some(Command::Region(options)) => run_async(fleet::region::run(options)),
        Some(Command::BundleRules(options)) => options.run(),
        Some(Command::FleetDemo(options)) => run_async(fleet::demo::run(options, Signals::first())),
    }
}

fn run_async(work: impl Future<Output = Result<(), BoxError>>) -> Result<(), BoxError> {
    let _written = log::start(&log::Log::default());
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(work)?;
    shut_down(runtime);
    Ok(())
}

fn run_node(options: NodeOptions, membership: Option<Membership>) -> Result<(), BoxError> {
    let config = options.clone().config()?;
    // What is written there from now on is a change.
    let read = options.table()?;
    let _written = log::start(&config.log);
    if options.check {
        return check(&config, membership.is_some());
    }
    std::fs::create_dir_all(&config.data).map_err(|error| format!("{}: {error}", config.data.display()))?;
    let _lock = life::lock(&config.data)?;
    let (token, is_new) = token::open(config.admin.token.clone().map(toml::Spanned::into_inner), &config.data)?;
    if membership.is_some() {
        config.has_one_module("a node of a fleet")?;
    }

    let runtime = Builder::new_multi_thread().enable_all().thread_stack_size(WORKER_STACK).build()?;
    let (traffic, metrics) = (Arc::new(Traffic::default()), Arc::new(Metrics::new()));
    let modules = deploy::start_all(&config, runtime.handle(), &traffic, &metrics, membership.is_some())?;
    // Files that somebody changes on one node of a fleet are no release.
    let _watchers = match membership {
        None => watch_modules(&config, &modules)?,
        Some(_) => Vec::new(),
    };
    if modules.has_several() {
        let names: Vec<_> = modules.iter().map(|module| module.name()).collect();
        println!("waf: requests meet the modules {}, in this order", names.join(", "));
    }
    match &token {
        Some(token) if is_new => {
            println!("waf: the admin token, kept in {}/token, is {}", config.data.display(), token.0);
        }
        Some(_) => {}
        None => println!("waf: the admin API asks for no token: whoever can reach it can change the rules"),
    }
    let fleet = match &membership {
        Some(membership) => Some(fleet::start(&config, membership, modules.first(), &runtime)?),
        None => None,
    };
    let (draining, is_draining) = channel(false);
    let stopping = modules.clone();
    let guards = Chain::new(modules.iter().map(|module| module.guard_handle()).collect());
    let admin = Admin {
        modules,
        guard: Arc::new(Guard::new(guards, traffic, metrics)),
        tokens: Arc::new(RwLock::new(Arc::new(Tokens::new(token.as_ref(), &config.admin)))),
        audit: Audit::open(&config.data)?,
        hosts: config.admin.hosts.clone().into(),
        terms: admin::UploadTerms { max_bytes: config.admin.max_upload_bytes, deadline: config.admin.upload_timeout.0 },
        draining: is_draining,
        fleet,
    };
    runtime.block_on(listen(&config, (options, read), admin, draining))?;
    stopping.iter().for_each(|module| module.end_trial_at_stop());
    shut_down(runtime);
    Ok(())
}

/// Takes up the files of each module that change, where they are to be watched, for as long as the result lives.
fn watch_modules(config: &Config, modules: &Chain<Deployments>) -> Result<Vec<RecommendedWatcher>, BoxError> {
    let mut watchers = Vec::new();
    for (module, deployments) in config.modules()?.iter().zip(modules.iter()) {
        if module.watches_files() {
            watchers.extend(watch::watch(deployments)?);
        }
    }
    Ok(watchers)
}

/// Tries everything that a start would need, and changes nothing.
fn check(config: &Config, in_fleet: bool) -> Result<(), BoxError> {
    for module in config.modules()? {
        let (file, set_up) = (&module.file, &module.config);
        let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let rules = match std::fs::read(set_up) {
            Ok(rules) => rules,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => deploy::default_config(&module).to_vec(),
            Err(error) => return Err(format!("{}: {error}", set_up.display()).into()),
        };
        let (release, engine) = (Release::new(bytes, rules), Engine::of(module.clone(), config, None)?);
        trust::try_out(config, &module.name, file, in_fleet, &release)?;
        rules::open(&module.name, &engine, &release, module.samples())
            .map_err(|error| format!("{} with {}: {error}", file.display(), set_up.display()))?;
    }
    config.policy()?;
    config.certificates().map(Certificates::read).transpose()?;
    config.admin_certificates().map(Certificates::read).transpose()?;
    println!("waf: the configuration can be started");
    Ok(())
}

/// Serves until a signal comes, and finishes what is under way.
async fn listen(
    config: &Config,
    (options, read): (NodeOptions, Table),
    admin: Admin,
    draining: tokio::sync::watch::Sender<bool>,
) -> Result<(), BoxError> {
    let mut signals = Signals::new()?;
    // The admin listener goes last: it says that the node stops.
    let (stopping, stop) = channel(false);
    let (ending, end) = channel(false);
    let terms = Terms {
        max_connections: config.proxy.max_connections,
        header_timeout: config.proxy.header_timeout.0,
        send_timeout: config.proxy.send_timeout.0,
        shutdown_timeout: config.proxy.shutdown_timeout.0,
    };
    let demo = if config.demo {
        tell_of_demo();
        Some(format!("http://{}", demo::start(terms, end.clone()).await?).parse()?)
    } else {
        None
    };
    let certificates = config.certificates().map(Certificates::read).transpose()?;
    let admin_certificates = config.admin_certificates().map(Certificates::read).transpose()?;
    let data_listener = Listener::tcp(config.listen, certificates.as_ref()).await?;
    let admin_listener = match &config.admin.listen {
        Address::Tcp(address) => Listener::tcp(*address, admin_certificates.as_ref()).await?,
        #[cfg(unix)]
        Address::Unix(path) => Listener::unix(path)?,
        #[cfg(not(unix))]
        Address::Unix(_) => return Err("there are no Unix sockets here".into()),
    };
    let guard = Arc::clone(&admin.guard);
    let proxy = Arc::new(Proxy::new(Arc::clone(&guard), config, demo)?);
    let behind: Vec<_> =
        proxy.upstreams().iter().flat_map(|site| &site.upstreams).map(|state| state.url.clone()).collect();
    println!("waf: serving on {}, in front of {}", data_listener.name()?, behind.join(" and "));
    println!("waf: the admin API and its page are on {}", admin_listener.name()?);

    let serving = Arc::clone(&proxy);
    let (open, admin_open) = guard.metrics().connections();
    let data = tokio::spawn(serve(data_listener, terms, open, stop, move |peer, request| {
        let proxy = Arc::clone(&serving);
        async move { proxy.answer(peer, request).await }
    }));
    let parts = Parts {
        modules: admin.modules.clone(),
        proxy: Arc::clone(&proxy),
        tokens: Arc::clone(&admin.tokens),
        certificates: certificates.clone(),
        admin_certificates: admin_certificates.clone(),
    };
    let settings = Arc::new(Settings::new(options.clone(), config.clone(), read, parts, admin.fleet.is_some()));
    let router = admin::router(admin, Arc::clone(&proxy), Arc::clone(&settings));
    let api = tokio::spawn(serve(
        admin_listener,
        Terms { max_connections: 256, ..terms },
        admin_open,
        end,
        move |peer, mut request| {
            // For the audit log.
            request.extensions_mut().insert(peer);
            serve::through(router.clone(), request)
        },
    ));
    let watched = Arc::clone(&proxy);
    let seconds = tokio::spawn(async move {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            guard.tick();
            life::alive();
            watched.tidy();
            certificates.iter().chain(&admin_certificates).for_each(|certificates| certificates.refresh());
        }
    });
    let _watcher = watch_config(config, options.config_file(), &settings)?;
    life::ready();
    let signal = loop {
        match signals.next().await {
            Signal::Reload => {
                life::reloading();
                let settings = Arc::clone(&settings);
                // Module and rule file may have to wait for their time: the node does not.
                tokio::task::spawn_blocking(move || {
                    if let Err(error) = settings.reload() {
                        let error = escape_untrusted(&error.to_string()).into_owned();
                        tracing::error!(error, "the configuration stays as it was");
                    }
                    life::ready();
                });
            }
            signal => break signal,
        }
    };
    life::stopping();
    let _ = draining.send(true);
    if signal == Signal::Drain && !config.proxy.drain.0.is_zero() {
        tracing::info!(seconds = config.proxy.drain.0.as_secs_f64(), "not ready any more, and serving on");
        // Whoever asks a second time means it.
        let _ = tokio::time::timeout(config.proxy.drain.0, signals.end()).await;
    }
    tracing::info!("stopping");
    seconds.abort();
    let _ = stopping.send(true);
    let _ = data.await;
    let _ = ending.send(true);
    let _ = api.await;
    Ok(())
}

/// Has the configuration read again when its file changes, if files are watched.
fn watch_config(
    config: &Config,
    file: Option<&Path>,
    settings: &Arc<Settings>,
) -> Result<Option<RecommendedWatcher>, BoxError> {
    let Some(file) = file.filter(|_| config.wasm.reload.auto_reload_on_file_change) else { return Ok(None) };
    let (settings, runtime) = (Arc::clone(settings), tokio::runtime::Handle::current());
    let watcher = watch::watch_file(file, move |_| {
        let _runtime = runtime.enter();
        if settings.has_changed()
            && let Err(error) = settings.reload()
        {
            let error = escape_untrusted(&error.to_string()).into_owned();
            tracing::error!(error, "the configuration stays as it was");
        }
        None
    });
    watcher.map(Some)
}

/// Nobody is to take it for their own.
fn tell_of_demo() {
    use std::io::IsTerminal;
    let text = "no upstream is configured: requests go to a demo upstream inside this program";
    if std::io::stderr().is_terminal() {
        eprintln!("\x1b[1;31mwaf: {text}\x1b[0m");
    } else {
        eprintln!("waf: {text}");
    }
}

/// What is still under way has had its time.
fn shut_down(runtime: Runtime) {
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// An error can quote a file: its line breaks stay, and nothing else that steers a terminal.
fn printable_lines(text: &str) -> String {
    text.lines().map(escape_untrusted).collect::<Vec<_>>().join("\n")
}

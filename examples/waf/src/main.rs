//! A firewall that changes its rules while it serves: `cargo run -p waf`.
//!
//! Requests come in through [`mod@serve`], pass the [`proxy`], which asks the [`guard`] about each, which asks the
//! [`rules`] in the slot. [`deploy`] is everything that changes what serves; [`admin`] and [`watch`] call it.
#![deny(unsafe_code)]
#![allow(unreachable_pub, reason = "a program has nobody outside")]

mod activity;
mod admin;
mod archive;
mod body;
mod cli;
mod config;
mod demo;
mod deploy;
mod guard;
mod hold;
mod impatient;
mod json;
mod live;
mod metrics;
mod net;
mod policy;
mod proxy;
mod readable;
mod release;
mod request_id;
mod rule_file;
mod rules;
mod serve;
mod sites;
mod token;
mod upstream;
mod version;
mod watch;
mod without;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use hotslot::{BoxError, escape_untrusted};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch::channel;

use self::admin::Admin;
use self::archive::Archive;
use self::cli::Options;
use self::config::Config;
use self::proxy::Proxy;
use self::rules::Engine;
use self::serve::{Terms, serve};

/// What a worker of the runtime has on its stack beside the rules, which may use 256 KiB of it.
const WORKER_STACK: usize = 4 << 20;

fn main() -> ExitCode {
    // A library that crashes or hangs when it is loaded does so in a child of this program, which does not get past this line.
    hotslot::native::rehearsal_point();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("WAF_LOG").unwrap_or_else(|_| "info".into()))
        .init();
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("waf: {}", printable_lines(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), BoxError> {
    let config = options.config()?;
    std::fs::create_dir_all(&config.data).map_err(|error| format!("{}: {error}", config.data.display()))?;
    let (token, is_new) = token::open(config.admin.token.clone().map(toml::Spanned::into_inner), &config.data)?;
    let name = config.wasm.module.file_stem().and_then(|name| name.to_str()).ok_or("the module has no name")?;

    let runtime = Builder::new_multi_thread().enable_all().thread_stack_size(WORKER_STACK).build()?;
    let engine = Engine::new(&config)?;
    let archive = Archive::open(&config, runtime.handle().clone())?;
    let deployments = deploy::start(&config, name, &engine, archive)?;
    let reload = &config.wasm.reload;
    let _watchers = if config.wasm.hot_reload_enabled && reload.auto_reload_on_file_change {
        watch::watch(&deployments, &config.wasm.module, &config.rule_file())?
    } else {
        Vec::new()
    };
    match &token {
        Some(token) if is_new => {
            println!("waf: the admin token, kept in {}/token, is {}", config.data.display(), token.0);
        }
        Some(_) => {}
        None => println!("waf: the admin API asks for no token: whoever can reach it can change the rules"),
    }
    let (stopping, stop) = channel(false);
    let admin = Admin {
        name: name.into(),
        deployments,
        engine,
        token,
        hosts: config.admin.hosts.clone().into(),
        terms: admin::UploadTerms { max_bytes: config.admin.max_upload_bytes, deadline: config.admin.upload_timeout.0 },
        stop,
    };
    runtime.block_on(listen(&config, admin, stopping))?;
    shut_down(runtime);
    Ok(())
}

/// Serves until a signal comes, and finishes what is under way.
async fn listen(config: &Config, admin: Admin, stopping: tokio::sync::watch::Sender<bool>) -> Result<(), BoxError> {
    let mut signals = Signals::new()?;
    let terms = Terms {
        max_connections: config.proxy.max_connections,
        header_timeout: config.proxy.header_timeout.0,
        send_timeout: config.proxy.send_timeout.0,
        shutdown_timeout: config.proxy.shutdown_timeout.0,
    };
    let stop = admin.stop.clone();
    let upstream = match &config.upstream {
        Some(upstream) => Some(upstream.clone()),
        None if config.upstreams.is_empty() && config.sites.is_empty() => {
            Some(format!("http://{}", demo::start(terms, stop.clone()).await?).parse()?)
        }
        None => None,
    };
    let data_listener = bind(config.listen).await?;
    let admin_listener = bind(config.admin.listen).await?;
    let guard = admin.deployments.guard_handle();
    let proxy = Arc::new(Proxy::new(Arc::clone(&guard), config, upstream)?);
    let behind: Vec<_> =
        proxy.upstreams().iter().flat_map(|site| &site.upstreams).map(|state| state.url.clone()).collect();
    println!("waf: serving on http://{}, in front of {}", data_listener.local_addr()?, behind.join(" and "));
    println!("waf: the admin API and its page are on http://{}", admin_listener.local_addr()?);

    let serving = Arc::clone(&proxy);
    let data = tokio::spawn(serve(data_listener, terms, stop.clone(), move |peer, request| {
        let proxy = Arc::clone(&serving);
        async move { proxy.answer(peer, request).await }
    }));
    let router = admin::router(admin, Arc::clone(&proxy));
    let api = tokio::spawn(serve(admin_listener, Terms { max_connections: 256, ..terms }, stop, move |_, request| {
        serve::through(router.clone(), request)
    }));
    let seconds = tokio::spawn(async move {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            guard.traffic().tick();
            guard.take_tally();
        }
    });
    signals.wait().await;
    tracing::info!("stopping");
    seconds.abort();
    let _ = stopping.send(true);
    let _ = tokio::join!(data, api);
    Ok(())
}

async fn bind(address: std::net::SocketAddr) -> Result<TcpListener, BoxError> {
    TcpListener::bind(address).await.map_err(|error| format!("{address}: {error}").into())
}

/// What tells the node to stop. Listened to before the node says that it serves: a signal that comes right after that
/// must not end it half way.
#[cfg(unix)]
struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    }

    /// Waits until somebody wants the node to stop.
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn new() -> std::io::Result<Signals> {
        tokio::signal::windows::ctrl_c().map(Signals)
    }

    /// Waits until somebody wants the node to stop.
    async fn wait(&mut self) {
        self.0.recv().await;
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

//! An orchestrator: `waf orchestrator --nats nats://…`. Takes releases and rules, and leads their rollouts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use hotslot::BoxError;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::json;
use toml::Spanned;
use waf_rollout::{Command, NotDone, Plan};

use super::About;
use super::api::{self, Api, Tokens};
use super::artifacts::Artifacts;
use super::examiner::Examiner;
use super::leader::{self, AskError, Basis, Desk};
use super::queue::Queue;
use super::store::{Endpoint, Store};
use crate::config::{AdminToken, Config, Token};
use crate::listen::{Certificates, Listener};
use crate::serve::{Terms, serve, through};
use crate::token;
use crate::trust::Trust;

/// How long a command waits for this process to know the fleet and to lead it, if nobody else does.
const PATIENCE: Duration = Duration::from_secs(60);

/// Leads a fleet of nodes: `waf node --fleet …`.
#[derive(Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    endpoint: Endpoint,

    /// The configuration file: its limits and golden requests are what a release has to bear before any node hears of it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where the API and its page are
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// The folder in which the orchestrator keeps what it must not forget
    #[arg(long, value_name = "FOLDER", default_value = "waf-orchestrator")]
    data: PathBuf,

    /// On how many NATS servers everything is kept
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    replicas: usize,

    /// How many releases stay in NATS beside those that serve or that the fleet would go back to; all stay in the folder
    #[arg(long, value_name = "COUNT", default_value_t = 32)]
    keep_releases: usize,

    /// A JSON file with the plan of rollouts that bring none of their own
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,

    /// The token of the role `deploy`; better set in the environment, where others do not see it
    #[arg(long, value_name = "TOKEN", env = "WAF_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<Token>,
}

impl Options {
    fn plan(&self) -> Result<Plan, BoxError> {
        let Some(path) = &self.plan else { return Ok(Plan::default()) };
        let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()).into())
    }
}

/// Leads until `stop` is raised by a signal.
pub async fn run(options: Options, stopping: impl Future<Output = ()>) -> Result<(), BoxError> {
    let mut config = options.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
    config.data.clone_from(&options.data);
    config.has_one_module("an orchestrator")?;
    let plan = options.plan()?;
    let slot = config.modules()?.swap_remove(0).name;
    std::fs::create_dir_all(&config.data).map_err(|error| format!("{}: {error}", config.data.display()))?;
    let _lock = crate::life::lock(&config.data)?;
    let trust = Trust::open(&config, &config.data, &slot, true, [])?.map(Arc::new);
    let set = options.token.map(AdminToken::Secret).or(config.admin.token.clone().map(Spanned::into_inner));
    let (deploy, is_new) = token::open(set, &config.data)?;
    let deploy = deploy.ok_or("an orchestrator changes a whole fleet: it needs another token than \"none\"")?;
    let role = |name: &str| -> Result<Token, BoxError> {
        let folder = config.data.join("roles").join(name);
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(token::stored(&folder)?.0)
    };
    let tokens = Tokens { view: role("view")?, stop: role("stop")?, deploy };
    let certificates = config.admin_certificates().map(Certificates::read).transpose()?;
    let listener = Listener::tcp(options.listen, certificates.as_ref()).await?;
    let (name, address) = (listener.name()?, listener.address()?);
    let store = Store::connect(&options.endpoint, &format!("orchestrator-{}", address.port())).await?;
    let artifacts = Artifacts::open(&config.data, store.clone())?;
    let me = address.to_string();
    let (replicas, keep) = (options.replicas, options.keep_releases);
    let desk = leader::start(&me, &config.data, store, artifacts.clone(), replicas, keep).await?;
    if is_new {
        println!("waf: the token of the role deploy, kept in {}/token, is {}", config.data.display(), tokens.deploy.0);
    }
    println!("waf: the orchestrator's API and its page are on {name}");
    let examiner = Examiner::new(config.clone(), trust)?;
    let queue = Queue::start(&config.data, desk.clone(), artifacts.clone(), Arc::clone(&examiner)).await?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let api = Api {
        desk,
        artifacts,
        examiner,
        queue,
        tokens: Arc::new(tokens),
        hosts: config.admin.hosts.clone().into(),
        plan: Arc::new(plan),
        max_upload_bytes: config.admin.max_upload_bytes,
        upload_timeout: config.admin.upload_timeout.0,
        data: Arc::new(config.data.clone()),
        stop: stopped.clone(),
        starting: Arc::default(),
        checking: Arc::default(),
    };
    let served = listen(listener, &config, api, stopped);
    stopping.await;
    tracing::info!("stopping");
    let _ = stop.send(true);
    let _ = served.await;
    Ok(())
}

fn listen(
    listener: Listener,
    config: &Config,
    api: Api,
    stop: tokio::sync::watch::Receiver<bool>,
) -> tokio::task::JoinHandle<()> {
    let terms = Terms {
        max_connections: 1024,
        header_timeout: config.proxy.header_timeout.0,
        send_timeout: config.proxy.send_timeout.0,
        shutdown_timeout: config.proxy.shutdown_timeout.0,
    };
    let router = api::router(api);
    tokio::spawn(serve(listener, terms, Gauge::default(), stop, move |_, request| through(router.clone(), request)))
}

/// Why a request was not carried out, as it is answered.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub status: StatusCode,
    pub body: serde_json::Value,
}

impl Problem {
    pub fn new(status: StatusCode, error: impl Into<String>) -> Problem {
        Problem { status, body: json!({ "success": false, "error": error.into() }) }
    }

    pub fn bad(error: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, error)
    }

    pub fn conflict(error: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, error)
    }

    pub fn unavailable(error: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    /// What would be refused by the nodes is refused before they hear of it.
    pub fn invalid(stage: &str, error: impl Into<String>) -> Problem {
        let body = json!({ "success": false, "error": error.into(), "stage": stage });
        Problem { status: StatusCode::UNPROCESSABLE_ENTITY, body }
    }
}

impl From<(StatusCode, Json<serde_json::Value>)> for Problem {
    fn from((status, Json(body)): (StatusCode, Json<serde_json::Value>)) -> Problem {
        Problem { status, body }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Problem {
        let text = error.to_string();
        match error {
            AskError::NotDone(NotDone::NotLeading { .. } | NotDone::NotKnown)
            | AskError::Store(_)
            | AskError::Unavailable(_) => Problem::unavailable(text),
            _ => Problem::conflict(text),
        }
    }
}

/// Has the leader carry out a command, waiting for it to know the fleet and, if it was the last to lead, to lead again.
pub(super) async fn start_rollout(desk: &Desk, command: Command, about: About, basis: Basis) -> Result<u64, AskError> {
    let began = Instant::now();
    loop {
        let problem = match desk.command(command.clone(), about.clone(), basis.clone()).await {
            Ok(rollout) => return Ok(rollout),
            Err(problem) => problem,
        };
        let may_pass = match &problem {
            AskError::NotDone(NotDone::NotKnown) => true,
            // A predecessor at the same address is this orchestrator before a restart.
            AskError::NotDone(NotDone::NotLeading { leader }) => leader.as_ref().is_none_or(|leader| {
                let me = desk.view.lock().me.clone();
                leader.rsplit_once('.').map(|it| it.0) == me.rsplit_once('.').map(|it| it.0)
            }),
            _ => false,
        };
        if !may_pass || began.elapsed() > PATIENCE {
            return Err(problem);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

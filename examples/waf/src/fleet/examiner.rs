//! Tries a release before any node hears of it: its signatures have to hold, it is loaded, set up with its rule file, and has to
//! pass the golden requests.

use std::sync::Arc;

use hotslot::{BoxError, escape_untrusted};
use hotslot_trust::Purpose;
use serde_json::json;

use super::Settings;
use super::orchestrator::Problem;
use crate::config::Config;
use crate::release::{Module, Release};
use crate::rules::{self, Engine};
use crate::trust::{Trust, Untrusted, id};

pub(super) struct Examiner {
    engine: Engine,
    /// Whose signatures count; `None` if anything is taken, and nodes judge for themselves.
    trust: Option<Arc<Trust>>,
}

/// What a release is examined for.
#[derive(Clone)]
pub(super) enum Use {
    /// To serve something new, in the place of what the fleet has settled on.
    New { settled: Option<Module> },
    /// To serve what has served before.
    Again,
}

/// Why a release must not serve.
pub(super) enum Unfit {
    Untrusted(Untrusted),
    /// It does not load, or not with its rules, or gives wrong verdicts.
    Bad(String),
}

impl Unfit {
    pub fn problem(self, stage: &str) -> Problem {
        match self {
            Unfit::Bad(problem) => Problem::invalid(stage, problem),
            Unfit::Untrusted(error) => {
                let mut problem = Problem::invalid("trust", escape_untrusted(&error.to_string()));
                problem.body["reason"] = json!(error.reason());
                if error.is_outdated() {
                    problem.status = axum::http::StatusCode::CONFLICT;
                } else if error.is_transient() {
                    problem.status = axum::http::StatusCode::INSUFFICIENT_STORAGE;
                }
                problem
            }
        }
    }
}

impl Examiner {
    pub fn new(config: Config, trust: Option<Arc<Trust>>) -> Result<Arc<Examiner>, BoxError> {
        let engine = Engine::new(&config, Some(&config.data.join("compiled")))?;
        Ok(Arc::new(Examiner { engine, trust }))
    }

    pub fn trust(&self) -> Option<&Arc<Trust>> {
        self.trust.as_ref()
    }

    /// Returns the release's version, or why it must not serve.
    pub async fn examine(
        self: &Arc<Self>,
        release: Release,
        settings: Settings,
        wanted: Use,
    ) -> Result<Option<String>, Unfit> {
        let this = Arc::clone(self);
        let examined = tokio::task::spawn_blocking(move || {
            this.is_trusted(&release, settings, wanted).map_err(Unfit::Untrusted)?;
            this.try_out(&release).map_err(Unfit::Bad)
        });
        examined.await.unwrap_or_else(|panic| Err(Unfit::Bad(panic.to_string())))
    }

    /// Checks that a release may serve again, without trying it.
    pub async fn may_return(self: &Arc<Self>, release: Release, settings: Settings) -> Result<(), Unfit> {
        let this = Arc::clone(self);
        let judged = tokio::task::spawn_blocking(move || this.is_trusted(&release, settings, Use::Again));
        judged.await.map_err(|panic| Unfit::Bad(panic.to_string()))?.map_err(Unfit::Untrusted)
    }

    /// Remembers the counter of a release whose rollout begins.
    pub async fn accept(self: &Arc<Self>, module: Module, settled: Option<Module>) -> Result<(), Unfit> {
        let Some(trust) = self.trust.clone() else { return Ok(()) };
        let accepted = tokio::task::spawn_blocking(move || {
            trust.accept(&module, Purpose::Reload { serving: settled.as_ref().and_then(id) })
        });
        accepted.await.map_err(|panic| Unfit::Bad(panic.to_string()))?.map_err(Unfit::Untrusted)
    }

    /// Takes up what the fleet has settled on, whoever has rolled it out.
    pub async fn learn(self: &Arc<Self>, settled: Module) {
        let Some(trust) = self.trust.clone() else { return };
        if let Err(panic) = tokio::task::spawn_blocking(move || trust.learn(&settled)).await {
            tracing::error!(%panic, "what the fleet has settled on");
        }
    }

    fn is_trusted(&self, release: &Release, settings: Settings, wanted: Use) -> Result<(), Untrusted> {
        let Some(trust) = &self.trust else { return Ok(()) };
        let purpose = match wanted {
            Use::New { settled } => Purpose::Reload { serving: settled.as_ref().and_then(id) },
            Use::Again => Purpose::Rollback,
        };
        trust.check(&release.module, release.rules.bytes(), purpose)?;
        trust.check_config(&release.module, &settings.bytes())
    }

    fn try_out(&self, release: &Release) -> Result<Option<String>, String> {
        let slot = rules::open("examined", &self.engine, release, self.engine.samples())
            .map_err(|error| escape_untrusted(&error.to_string()).into_owned())?;
        let serving = slot.status().serving;
        Ok(serving.and_then(|serving| serving.version).map(|version| version.to_string()))
    }
}

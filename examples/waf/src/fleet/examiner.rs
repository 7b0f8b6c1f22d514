//! Tries a release before any node hears of it: it is loaded, set up with its rule file, and has to pass the golden requests.

use std::sync::Arc;

use hotslot::{BoxError, escape_untrusted};

use crate::config::Config;
use crate::release::Release;
use crate::rules::{self, Engine};

pub(super) struct Examiner {
    engine: Engine,
}

impl Examiner {
    pub fn new(config: Config) -> Result<Arc<Examiner>, BoxError> {
        let engine = Engine::new(&config, Some(&config.data.join("compiled")))?;
        Ok(Arc::new(Examiner { engine }))
    }

    /// Returns the release's version, or why it must not serve.
    pub async fn examine(self: &Arc<Self>, release: Release) -> Result<Option<String>, String> {
        let this = Arc::clone(self);
        let examined = tokio::task::spawn_blocking(move || {
            let slot = rules::open("examined", &this.engine, &release, this.engine.samples())
                .map_err(|error| escape_untrusted(&error.to_string()).into_owned())?;
            let serving = slot.status().serving;
            Ok(serving.and_then(|serving| serving.version).map(|version| version.to_string()))
        });
        examined.await.unwrap_or_else(|panic| Err(panic.to_string()))
    }
}

//! The artifacts of an orchestrator: on its own disk first, and in the store for the nodes. So a store that has lost them can be
//! given them again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hotslot::{BoxError, Digest};
use waf_rollout::ReleaseId;

use super::store::{Store, StoreError};
use super::{Description, Settings};
use crate::release::{Module, Release};
use crate::replace_file::replace_file;
use crate::rule_file::RuleFile;

/// How long a release waits for the store.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much is removed at once, and how long that takes: the leader has other things to do.
const MOST_REMOVED: usize = 32;
const MOST_TIME: Duration = Duration::from_secs(2);

/// What has been removed from the store.
pub(super) struct Tidied {
    pub removed: usize,
    /// Whether there is more.
    pub is_cut_short: bool,
}

#[derive(Clone)]
pub(super) struct Artifacts {
    folder: PathBuf,
    store: Store,
}

impl Artifacts {
    pub fn open(data: &Path, store: Store) -> Result<Artifacts, BoxError> {
        let folder = data.join("artifacts");
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Artifacts { folder, store })
    }

    /// Keeps a release here and in the store, and waits for the store to be there: what is published is wanted now, and servers
    /// that have just started take a while to agree.
    pub async fn publish(&self, release: &Release, settings: Settings) -> Result<ReleaseId, BoxError> {
        let began = Instant::now();
        loop {
            match self.try_publish(release, settings).await {
                Ok(id) => return Ok(id),
                Err(error) if began.elapsed() > PATIENCE => return Err(error),
                Err(error) => tracing::warn!(%error, "the store does not take a release: trying again"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn try_publish(&self, release: &Release, settings: Settings) -> Result<ReleaseId, BoxError> {
        let description = Description::of(release, settings);
        let rules = Bytes::copy_from_slice(release.rules.bytes());
        for bytes in [release.module.bytes().clone(), rules, description.bytes()] {
            self.keep(bytes.clone()).await?;
            self.store.keep(&bytes).await?;
        }
        Ok(description.id())
    }

    /// Gives the store a release again, as far as it is here.
    pub async fn restore(&self, id: ReleaseId) -> Result<(), BoxError> {
        let (description, release) = self.release(id).await?;
        self.try_publish(&release, description.config).await.map(drop)
    }

    /// Returns a release, from here or from the store.
    pub async fn release(&self, id: ReleaseId) -> Result<(Description, Release), BoxError> {
        let description = Description::read(id, &self.get(&id.to_string()).await?)?;
        let module = self.get(&description.module).await?;
        let rules = self.get(&description.rules).await?;
        let module = Module::new(module).with_manifest(description.manifest());
        Ok((description, Release { module, rules: RuleFile::new(rules.to_vec()) }))
    }

    /// Removes from the store what none of these releases is made of, as far as time allows. Does nothing unless it is known
    /// what all of them are made of. What is removed is kept here, and can be given to the store again.
    ///
    /// Whoever begins a rollout has to [`restore`](Self::restore) its release after this: it may have been published before.
    pub async fn tidy(&self, releases: &[ReleaseId]) -> Result<Tidied, BoxError> {
        let mut names = self.store.artifact_names().await?;
        for id in releases {
            let name = id.to_string();
            // What neither the store nor this disk has is lost already.
            if !names.contains(&name) && !self.folder.join(&name).exists() {
                continue;
            }
            let description = Description::read(*id, &self.get(&name).await?)?;
            [&name, &description.module, &description.rules].into_iter().for_each(|used| _ = names.remove(used));
        }
        let began = Instant::now();
        let mut removed = 0;
        for name in &names {
            if removed == MOST_REMOVED || began.elapsed() > MOST_TIME {
                return Ok(Tidied { removed, is_cut_short: true });
            }
            // It may be another orchestrator's, of a release that this one has not seen: from now on it is here, too. What is
            // damaged is of no use to anybody.
            match tokio::time::timeout(MOST_TIME, self.get(name)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) if error.downcast_ref().is_some_and(StoreError::is_damage) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(format!("{name} cannot be fetched before it is removed").into()),
            }
            self.store.remove_artifact(name).await?;
            removed += 1;
        }
        Ok(Tidied { removed, is_cut_short: false })
    }

    /// Returns an artifact by its digest, from here or from the store.
    pub async fn get(&self, digest: &str) -> Result<Bytes, BoxError> {
        if let Ok(bytes) = tokio::fs::read(self.folder.join(digest)).await
            && Digest::of(&bytes).to_string() == digest
        {
            return Ok(bytes.into());
        }
        let bytes = self.store.artifact(digest).await?;
        self.keep(bytes.clone()).await?;
        Ok(bytes)
    }

    async fn keep(&self, bytes: Bytes) -> Result<(), BoxError> {
        let path = self.folder.join(Digest::of(&bytes).to_string());
        tokio::task::spawn_blocking(move || match path.exists() {
            true => Ok(()),
            false => replace_file(&path, &bytes).map_err(|error| format!("{}: {error}", path.display())),
        })
        .await??;
        Ok(())
    }
}

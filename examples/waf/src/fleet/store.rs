//! NATS, and the only file that knows it: two documents that are replaced by comparison, reports, artifacts, hints.
//!
//! Everything is a request on a subject. Nothing here makes a consumer: a stream has at most a thousand, and a fleet may have
//! more nodes. Reads are direct gets, so they may be answered by a server that lags; whoever reads has to bear that. An
//! error of a write does not say that it was not stored.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::{self, ErrorCode, kv, stream};
use async_nats::{Client, ConnectOptions, Event, HeaderMap, RequestErrorKind, ServerAddr};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use hotslot::Digest;
use tokio::sync::Notify;
use waf_rollout::{NodeId, Revision};

/// What the source document calls the subject of reloads: what is written to the bucket of documents is published there.
const HINTS: &str = "secbeat.wasm.reload";
const DOCUMENTS: &str = "desired";
const NODES: &str = "nodes";
const ARTIFACTS: &str = "artifacts";
const AUDIT: &str = "audit";
/// How long a request waits for its answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How much of an artifact is one message. A server takes at most a MiB if it is not told otherwise.
const CHUNK: usize = 128 << 10;
/// So many pieces, and an artifact is no artifact.
const MOST_CHUNKS: usize = 4096;

/// How to reach the servers, and as whom.
#[derive(Clone, Debug, clap::Args)]
pub struct Endpoint {
    /// The NATS servers: nats://HOST:PORT or tls://HOST:PORT, several with commas
    #[arg(
        id = "nats",
        long = "nats",
        visible_alias = "fleet",
        value_name = "URL",
        value_delimiter = ',',
        required = true
    )]
    pub servers: Vec<ServerAddr>,

    /// A file with the seed of the nkey by which the servers know this process
    #[arg(long, value_name = "FILE")]
    pub nkey: Option<PathBuf>,

    /// A file with the certificates that the servers' certificates must come from
    #[arg(long, value_name = "FILE")]
    pub nats_ca: Option<PathBuf>,
}

/// A key of the bucket of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// What the fleet should do.
    Desired,
    /// Who leads.
    Lease,
}

impl Key {
    fn name(self) -> &'static str {
        match self {
            Key::Desired => "slot.waf",
            Key::Lease => "leader.waf",
        }
    }
}

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no connection. Nothing was sent.
    #[error("NATS is not connected: see the log for why")]
    Disconnected,
    /// There is no answer. What was asked for may have happened or may still happen.
    #[error("NATS did not answer in time: {0}")]
    NoAnswer(&'static str),
    /// The streams are not there: JetStream is off, or it has lost them.
    #[error("NATS has no stream for the {0}: start an orchestrator, which makes them, and servers with JetStream")]
    NoStream(&'static str),
    /// Another revision is stored than the one that was to be replaced.
    #[error("the document has changed meanwhile")]
    Conflict,
    /// The server refuses.
    #[error("NATS refuses: {0}")]
    Refused(String),
    /// An artifact is not there.
    #[error("the artifact {0} is not in the store")]
    NotFound(String),
    /// An artifact has other bytes than its name promises.
    #[error("the artifact {0} is corrupt")]
    Corrupt(String),
    /// The connection cannot be configured.
    #[error("{0}")]
    Setup(String),
}

impl StoreError {
    /// Returns whether what was asked for is lost: pieces of it are missing, or are others.
    pub fn is_damage(&self) -> bool {
        matches!(self, StoreError::NotFound(_) | StoreError::Corrupt(_))
    }
}

/// What is stored under a key.
pub struct Stored {
    /// What a write has to name to replace it: 0 if nothing ever was there.
    pub revision: Revision,
    /// `None` if nothing is there, or if it was deleted.
    pub bytes: Option<Bytes>,
}

/// What a node tells. Who may publish on its subject is a matter of the servers' permissions, so that is who speaks.
pub struct Told {
    /// The last token of the subject, or the key.
    pub from: String,
    /// What it says; it may say anything.
    pub bytes: Bytes,
}

fn last_token(subject: &str) -> &str {
    subject.rsplit('.').next().unwrap_or_default()
}

/// The fleet's store. Cloning shares the connection.
#[derive(Clone)]
pub struct Store {
    client: Client,
    again: Arc<Notify>,
}

impl Store {
    /// Connects as `name`; goes on trying in the background for as long as there is no server.
    pub async fn connect(endpoint: &Endpoint, name: &str) -> Result<Store, StoreError> {
        let again = Arc::new(Notify::new());
        let told = Arc::clone(&again);
        let mut options = ConnectOptions::new()
            .name(name)
            // The subjects of answers are its own, so that permissions can say so.
            .custom_inbox_prefix(format!("_INBOX_{name}"))
            .retry_on_initial_connect()
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE))
            // A link that swallows everything is noticed by its missing answers only.
            .ping_interval(Duration::from_secs(5))
            .reconnect_delay_callback(|attempts| {
                let most = 100_u64.saturating_mul(1 << attempts.min(9)).min(30_000);
                Duration::from_millis(rand::random_range(0..=most))
            })
            .event_callback(move |event| {
                if event == Event::Connected {
                    told.notify_one();
                }
                async move {
                    match event {
                        Event::Connected => tracing::info!("NATS is connected"),
                        // A permission that is missing looks like a missing answer everywhere else.
                        Event::ServerError(error) => tracing::error!(%error, "NATS refuses"),
                        event => tracing::warn!(%event, "NATS"),
                    }
                }
            });
        // The client does not take them from there.
        let user = endpoint.servers.iter().find_map(|server| Some((server.username()?, server.password()?)));
        if let Some((user, password)) = user {
            options = options.user_and_password(user.to_owned(), password.to_owned());
        }
        if let Some(path) = &endpoint.nkey {
            let seed = std::fs::read_to_string(path)
                .map_err(|error| StoreError::Setup(format!("{}: {error}", path.display())))?;
            options = options.nkey(seed.trim().to_owned());
        }
        if let Some(path) = &endpoint.nats_ca {
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        let connected = options.connect(endpoint.servers.clone()).await;
        let client = connected.map_err(|error| StoreError::Setup(error.to_string()))?;
        Ok(Store { client, again })
    }

    /// Is notified whenever the connection is there again.
    pub fn connected_again(&self) -> Arc<Notify> {
        Arc::clone(&self.again)
    }

    /// Makes the streams, unless they are there, on so many servers at least: another orchestrator may have been told of more.
    pub async fn prepare(&self, replicas: usize) -> Result<(), StoreError> {
        self.connected()?;
        let context = jetstream::new(self.client.clone());
        let refused = |error: &dyn std::fmt::Display| StoreError::Refused(error.to_string());
        let republish =
            stream::Republish { source: ">".into(), destination: format!("{HINTS}.>"), headers_only: false };
        let documents = kv::Config {
            bucket: DOCUMENTS.into(),
            history: 64,
            num_replicas: replicas,
            republish: Some(republish),
            ..kv::Config::default()
        };
        let nodes = kv::Config { bucket: NODES.into(), history: 1, num_replicas: replicas, ..kv::Config::default() };
        for mut bucket in [documents, nodes] {
            let is_missing = |error: &GetStreamError| match error.kind() {
                GetStreamErrorKind::JetStream(error) => error.error_code() == ErrorCode::STREAM_NOT_FOUND,
                _ => false,
            };
            match context.get_stream(format!("KV_{}", bucket.bucket)).await {
                Ok(stream) => bucket.num_replicas = replicas.max(stream.cached_info().config.num_replicas),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(refused(&error)),
            }
            context.create_or_update_key_value(bucket).await.map_err(|error| refused(&error))?;
        }
        let artifacts = stream::Config {
            name: ARTIFACTS.into(),
            subjects: vec!["waf.artifact.>".into()],
            max_messages_per_subject: 1,
            allow_direct: true,
            num_replicas: replicas,
            ..stream::Config::default()
        };
        let audit = stream::Config {
            name: AUDIT.into(),
            subjects: vec!["waf.audit".into()],
            deny_delete: true,
            deny_purge: true,
            // The oldest lines go first. All of them are in the orchestrators' files.
            max_messages: 1 << 20,
            allow_direct: true,
            num_replicas: replicas,
            ..stream::Config::default()
        };
        for stream in [artifacts, audit] {
            context.get_or_create_stream(stream).await.map_err(|error| refused(&error))?;
        }
        Ok(())
    }

    /// Makes copies of the hub's documents and artifacts in a region, under the same names, unless they are there: what nodes ask
    /// for is answered by the servers of their region. A copy of a document tells of itself once it is there.
    pub async fn mirror(&self, hub: &str, replicas: usize) -> Result<(), StoreError> {
        self.connected()?;
        let context = jetstream::new(self.client.clone());
        let documents = format!("KV_{DOCUMENTS}");
        for name in [documents.as_str(), ARTIFACTS] {
            let external = stream::External { api_prefix: format!("$JS.{hub}.API"), delivery_prefix: None };
            let hints =
                stream::Republish { source: ">".into(), destination: format!("{HINTS}.>"), headers_only: false };
            let copy = stream::Config {
                name: name.to_owned(),
                mirror: Some(stream::Source { name: name.to_owned(), external: Some(external), ..Default::default() }),
                republish: (name == documents).then_some(hints),
                max_messages_per_subject: if name == documents { 64 } else { 1 },
                allow_direct: true,
                num_replicas: replicas,
                ..stream::Config::default()
            };
            let made = context.get_or_create_stream(copy).await;
            made.map_err(|error| StoreError::Refused(format!("the copy of {name}: {error}")))?;
        }
        Ok(())
    }

    fn connected(&self) -> Result<(), StoreError> {
        // What is sent without a connection is kept and sent late, when nobody wants it any more.
        match self.client.connection_state() {
            async_nats::connection::State::Connected => Ok(()),
            _ => Err(StoreError::Disconnected),
        }
    }

    /// Reads what is stored under a key.
    pub async fn read(&self, key: Key) -> Result<Stored, StoreError> {
        let subject = format!("$KV.{DOCUMENTS}.{}", key.name());
        let found = self.direct_get("KV_desired", DOCUMENTS, &subject, "the document").await?;
        let Some((revision, headers, bytes)) = found else { return Ok(Stored { revision: 0, bytes: None }) };
        let operation = headers.as_ref().and_then(|headers| headers.get("KV-Operation"));
        let is_deleted = operation.is_some_and(|operation| operation.as_str() != "PUT");
        Ok(Stored { revision, bytes: (!is_deleted).then_some(bytes) })
    }

    /// Replaces the revision `replaced` of what is stored under a key.
    pub async fn write(&self, key: Key, replaced: Revision, bytes: Vec<u8>) -> Result<Revision, StoreError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", replaced.to_string().as_str());
        self.store(format!("$KV.{DOCUMENTS}.{}", key.name()), headers, bytes.into(), DOCUMENTS).await
    }

    /// Returns a stream of hints that the document may have changed.
    pub async fn hints(&self) -> Result<impl Stream<Item = ()> + Send + Unpin + use<>, StoreError> {
        // Only the document's: every renewal of the lease is published, too.
        let subject = format!("{HINTS}.$KV.{DOCUMENTS}.{}", Key::Desired.name());
        let hints = self.client.subscribe(subject).await.map_err(|error| StoreError::Setup(error.to_string()))?;
        Ok(hints.map(drop))
    }

    /// Tells how a node stands; kept if it has `changed`. Whether it arrived is not known, and it is told again.
    pub async fn tell(&self, node: &NodeId, changed: bool, report: Vec<u8>) -> Result<(), StoreError> {
        self.connected()?;
        let subject = if changed { format!("$KV.{NODES}.{node}") } else { format!("waf.heartbeat.{node}") };
        let told = self.client.publish(subject, report.into()).await;
        told.map_err(|error| StoreError::Refused(error.to_string()))
    }

    /// Returns a stream of what nodes tell, from now on.
    pub async fn reports(&self) -> Result<impl Stream<Item = Told> + Send + Unpin + use<>, StoreError> {
        let setup = |error: async_nats::SubscribeError| StoreError::Setup(error.to_string());
        // A write to the bucket is a message like any other.
        let changes = self.client.subscribe(format!("$KV.{NODES}.>")).await.map_err(setup)?;
        let beats = self.client.subscribe("waf.heartbeat.>").await.map_err(setup)?;
        Ok(futures_util::stream::select(changes, beats)
            .map(|message| Told { from: last_token(&message.subject).to_owned(), bytes: message.payload }))
    }

    /// Returns what nodes have told last.
    pub async fn last_reports(&self) -> Result<Vec<Told>, StoreError> {
        let context = jetstream::new(self.client.clone());
        let refused = |error: &dyn std::fmt::Display| StoreError::Refused(error.to_string());
        let bucket = context.get_key_value(NODES).await.map_err(|error| refused(&error))?;
        let mut keys = bucket.keys().await.map_err(|error| refused(&error))?;
        let mut reports = Vec::new();
        while let Some(key) = keys.next().await {
            let key = key.map_err(|error| refused(&error))?;
            let bytes = bucket.get(key.as_str()).await.map_err(|error| refused(&error))?;
            reports.extend(bytes.map(|bytes| Told { from: key, bytes }));
        }
        Ok(reports)
    }

    /// Forgets what a node has told.
    pub async fn forget(&self, node: &str) -> Result<(), StoreError> {
        let context = jetstream::new(self.client.clone());
        let refused = |error: &dyn std::fmt::Display| StoreError::Refused(error.to_string());
        let bucket = context.get_key_value(NODES).await.map_err(|error| refused(&error))?;
        bucket.purge(node).await.map_err(|error| refused(&error))
    }

    /// Keeps an artifact under its digest, unless it is there.
    pub async fn keep(&self, bytes: &Bytes) -> Result<(), StoreError> {
        let digest = Digest::of(bytes).to_string();
        if self.artifact(&digest).await.is_ok() {
            return Ok(());
        }
        let count = bytes.len().div_ceil(CHUNK).max(1);
        if count > MOST_CHUNKS {
            return Err(StoreError::Refused(format!("an artifact has at most {} bytes", MOST_CHUNKS * CHUNK)));
        }
        for index in 0..count {
            let chunk = bytes.slice(index * CHUNK..bytes.len().min((index + 1) * CHUNK));
            let mut headers = HeaderMap::new();
            headers.insert("Waf-Chunks", count.to_string().as_str());
            self.store(format!("waf.artifact.{digest}.{index}"), headers, chunk, ARTIFACTS).await?;
        }
        Ok(())
    }

    /// Returns the artifact with this digest, verified.
    pub async fn artifact(&self, digest: &str) -> Result<Bytes, StoreError> {
        let (mut whole, mut index, mut count) = (BytesMut::new(), 0, 1);
        while index < count {
            let subject = format!("waf.artifact.{digest}.{index}");
            let found = self.direct_get(ARTIFACTS, ARTIFACTS, &subject, "a piece of an artifact").await?;
            let (_, headers, chunk) = found.ok_or_else(|| StoreError::NotFound(digest.to_owned()))?;
            let stated = headers.and_then(|headers| headers.get("Waf-Chunks")?.as_str().parse().ok()).unwrap_or(1);
            count = usize::min(stated, MOST_CHUNKS);
            whole.extend_from_slice(&chunk);
            index += 1;
        }
        let bytes = whole.freeze();
        if Digest::of(&bytes).to_string() != digest {
            return Err(StoreError::Corrupt(digest.to_owned()));
        }
        Ok(bytes)
    }

    /// Returns the digests of what is kept, whole or in part.
    pub async fn artifact_names(&self) -> Result<BTreeSet<String>, StoreError> {
        let refused = |error: &dyn std::fmt::Display| StoreError::Refused(error.to_string());
        let stream = self.artifacts().await?;
        let mut subjects = stream.info_with_subjects("waf.artifact.>").await.map_err(|error| refused(&error))?;
        let mut names = BTreeSet::new();
        while let Some(subject) = subjects.next().await {
            let (subject, _) = subject.map_err(|error| refused(&error))?;
            names.extend(subject.split('.').nth(2).map(str::to_owned));
        }
        Ok(names)
    }

    /// Removes an artifact.
    pub async fn remove_artifact(&self, digest: &str) -> Result<(), StoreError> {
        let purged = self.artifacts().await?.purge().filter(format!("waf.artifact.{digest}.>")).await;
        purged.map(drop).map_err(|error| StoreError::Refused(error.to_string()))
    }

    async fn artifacts(&self) -> Result<stream::Stream, StoreError> {
        self.connected()?;
        let stream = jetstream::new(self.client.clone()).get_stream(ARTIFACTS).await;
        stream.map_err(|error| StoreError::Refused(error.to_string()))
    }

    /// Adds a line to the stream of what was done.
    pub async fn record(&self, line: Vec<u8>) -> Result<(), StoreError> {
        self.store("waf.audit".to_owned(), HeaderMap::new(), line.into(), AUDIT).await.map(drop)
    }

    async fn direct_get(
        &self,
        stream: &str,
        what: &'static str,
        subject: &str,
        waited_for: &'static str,
    ) -> Result<Option<(Revision, Option<HeaderMap>, Bytes)>, StoreError> {
        self.connected()?;
        let answer = self.client.request(format!("$JS.API.DIRECT.GET.{stream}.{subject}"), Bytes::new()).await;
        let message = answer.map_err(|error| unanswered(error.kind(), what, waited_for, &error))?;
        let status = message.status.map(|status| status.as_u16());
        match status {
            None => {}
            Some(404) => return Ok(None),
            Some(status) => {
                let text = message.description.unwrap_or_default();
                return Err(StoreError::Refused(format!("{status} {text}")));
            }
        }
        // The server adds it to the message's own headers, which may have one: of what was itself an answer when it was stored.
        let sequence = message.headers.as_ref().and_then(|headers| headers.get_last("Nats-Sequence"));
        let sequence = sequence.and_then(|number| number.as_str().parse().ok());
        let sequence = sequence.ok_or_else(|| StoreError::Refused("an answer without a sequence".to_owned()))?;
        Ok(Some((sequence, message.headers, message.payload)))
    }

    async fn store(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        what: &'static str,
    ) -> Result<Revision, StoreError> {
        /// "wrong last sequence", as servers since 2.2 say it.
        const CONFLICT: u64 = 10071;
        self.connected()?;
        let answer = self.client.request_with_headers(subject, headers, payload).await;
        let message = answer.map_err(|error| unanswered(error.kind(), what, "a write", &error))?;
        let answer: serde_json::Value =
            serde_json::from_slice(&message.payload).map_err(|error| StoreError::Refused(error.to_string()))?;
        match (&answer["error"], answer["seq"].as_u64()) {
            (serde_json::Value::Null, Some(sequence)) => Ok(sequence),
            (error, _) if error["err_code"] == CONFLICT => Err(StoreError::Conflict),
            (error, _) => Err(StoreError::Refused(error["description"].as_str().unwrap_or("for no reason").to_owned())),
        }
    }
}

fn unanswered(
    kind: RequestErrorKind,
    what: &'static str,
    waited_for: &'static str,
    error: &dyn std::fmt::Display,
) -> StoreError {
    match kind {
        RequestErrorKind::TimedOut => StoreError::NoAnswer(waited_for),
        RequestErrorKind::NoResponders => StoreError::NoStream(what),
        _ => StoreError::Refused(error.to_string()),
    }
}

//! Certificates, read again when their files change: connections that come after that get the new ones.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use hotslot::BoxError;
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::policy::HostPattern;

/// Where a certificate and its key are, and for which hosts it is; for all others if there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub hosts: Vec<HostPattern>,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// How the files of a source were when they were last read.
type Stamp = Vec<Option<(SystemTime, u64)>>;

/// Certificates with the hosts that each is for.
type Served = Vec<(Vec<HostPattern>, Arc<CertifiedKey>)>;

/// The certificates of a listener.
pub struct Certificates {
    served: RwLock<Served>,
    sources: Mutex<(Vec<Source>, Vec<Stamp>)>,
}

/// What was read of files, and is not served yet.
pub struct Read {
    served: Served,
    sources: Vec<Source>,
    stamps: Vec<Stamp>,
}

impl Read {
    pub fn of(sources: Vec<Source>) -> Result<Read, BoxError> {
        let stamps = sources.iter().map(stamp).collect();
        Ok(Read { served: read_all(&sources)?, sources, stamps })
    }
}

impl Certificates {
    pub fn read(sources: Vec<Source>) -> Result<Arc<Certificates>, BoxError> {
        let Read { served, sources, stamps } = Read::of(sources)?;
        Ok(Arc::new(Certificates { served: RwLock::new(served), sources: Mutex::new((sources, stamps)) }))
    }

    /// Takes up those that were read of other files.
    pub fn take_up(&self, read: Read) {
        let mut sources = self.sources.lock();
        *self.served.write() = read.served;
        *sources = (read.sources, read.stamps);
    }

    /// Reads the files again if they have changed, wherever their names lead to. Certificate and key are replaced one after
    /// the other: for as long as they do not belong together, those before them are served.
    pub fn refresh(&self) {
        let mut guard = self.sources.lock();
        let (sources, stamps) = &mut *guard;
        let now: Vec<_> = sources.iter().map(stamp).collect();
        if now == *stamps {
            return;
        }
        *stamps = now;
        match read_all(sources) {
            Ok(served) => {
                *self.served.write() = served;
                tracing::info!("new certificates are served");
            }
            Err(error) => tracing::error!(%error, "the certificates before are served on"),
        }
    }

    /// What shakes hands with these certificates.
    pub fn acceptor(self: &Arc<Certificates>) -> Result<TlsAcceptor, BoxError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Certificates>::clone(self);
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let served = self.served.read();
        let named = hello
            .server_name()
            .and_then(|name| served.iter().find(|(hosts, _)| hosts.iter().any(|host| host.fits(name))));
        named.or_else(|| served.iter().find(|(hosts, _)| hosts.is_empty())).map(|(_, key)| Arc::clone(key))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

fn read_all(sources: &[Source]) -> Result<Served, BoxError> {
    sources.iter().map(|source| Ok((source.hosts.clone(), Arc::new(read(source)?)))).collect()
}

fn read(Source { certificate, key, .. }: &Source) -> Result<CertifiedKey, BoxError> {
    let named = |path: &Path, error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate).map_err(|error| named(certificate, &error))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| named(certificate, &error))?;
    if chain.is_empty() {
        return Err(named(certificate, &"there is no certificate in it").into());
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| named(key, &error))?;
    let signing = ring::sign::any_supported_type(&private).map_err(|error| named(key, &error))?;
    let certified = CertifiedKey::new(chain, signing);
    certified.keys_match().map_err(|error| named(key, &format!("does not belong to the certificate: {error}")))?;
    Ok(certified)
}

fn stamp(source: &Source) -> Stamp {
    let of = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(&metadata) ^ metadata.len();
        #[cfg(not(unix))]
        let number = metadata.len();
        Some((metadata.modified().ok()?, number))
    };
    vec![of(&source.certificate), of(&source.key)]
}

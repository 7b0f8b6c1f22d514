//! Where connections come in: TCP, with TLS or without, and Unix sockets.

mod address;
mod stream;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hotslot::BoxError;
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio_rustls::TlsAcceptor;

pub use self::address::Address;
pub use self::stream::Stream;
pub use self::tls::{Certificates, Read, Source};

pub enum Listener {
    Tcp(TcpListener, Option<TlsAcceptor>),
    #[cfg(unix)]
    Unix(UnixListener, std::path::PathBuf),
}

/// Whom a connection is with.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Of a Unix socket, the loopback address.
    pub address: SocketAddr,
    /// As it is written down.
    pub name: Arc<str>,
    pub tls: bool,
}

/// A connection that was accepted, before anything is said on it.
pub enum Accepted {
    Tcp(tokio::net::TcpStream, Option<TlsAcceptor>),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl Accepted {
    /// Shakes hands, if it is with TLS.
    pub async fn open(self) -> io::Result<Stream> {
        Ok(match self {
            Accepted::Tcp(stream, None) => Stream::Tcp(stream),
            Accepted::Tcp(stream, Some(acceptor)) => Stream::Tls(Box::new(acceptor.accept(stream).await?)),
            #[cfg(unix)]
            Accepted::Unix(stream) => Stream::Unix(stream),
        })
    }
}

impl Listener {
    /// Listens on TCP.
    pub async fn tcp(address: SocketAddr, certificates: Option<&Arc<Certificates>>) -> Result<Listener, BoxError> {
        let listener = TcpListener::bind(address).await.map_err(|error| format!("{address}: {error}"))?;
        let acceptor = certificates.map(|certificates| certificates.acceptor()).transpose()?;
        Ok(Listener::Tcp(listener, acceptor))
    }

    /// Listens on a Unix socket, which nobody but the node's user and group can use. One that is left of an earlier node is
    /// removed.
    #[cfg(unix)]
    pub fn unix(path: &std::path::Path) -> Result<Listener, BoxError> {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        let named = |error: io::Error| format!("{}: {error}", path.display());
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(format!("{}: is there, and is no socket", path.display()).into());
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(format!("{}: somebody listens there", path.display()).into());
            }
            std::fs::remove_file(path).map_err(named)?;
        }
        let listener = UnixListener::bind(path).map_err(named)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(named)?;
        Ok(Listener::Unix(listener, path.to_owned()))
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Tcp(listener, _) => listener.local_addr(),
            #[cfg(unix)]
            Listener::Unix(..) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Says where it is, as people write it.
    pub fn name(&self) -> io::Result<String> {
        Ok(match self {
            Listener::Tcp(listener, None) => format!("http://{}", listener.local_addr()?),
            Listener::Tcp(listener, Some(_)) => format!("https://{}", listener.local_addr()?),
            #[cfg(unix)]
            Listener::Unix(_, path) => format!("unix:{}", path.display()),
        })
    }

    pub async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match self {
            Listener::Tcp(listener, acceptor) => {
                let (stream, address) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                let peer = Peer { address, name: address.to_string().into(), tls: acceptor.is_some() };
                Ok((Accepted::Tcp(stream, acceptor.clone()), peer))
            }
            #[cfg(unix)]
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let name = match stream.peer_cred() {
                    Ok(user) => format!("unix, uid {}, pid {}", user.uid(), user.pid().unwrap_or_default()),
                    Err(_) => "unix".to_owned(),
                };
                let address = SocketAddr::from(([127, 0, 0, 1], 0));
                Ok((Accepted::Unix(stream), Peer { address, name: name.into(), tls: false }))
            }
        }
    }
}

#[cfg(unix)]
impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

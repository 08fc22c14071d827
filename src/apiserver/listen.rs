//! Where clients connect: which addresses are allowed, and the sockets behind them.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use super::accounts::Origin;
use super::{Config, Listen, StartError};

/// A bound socket.
#[derive(Debug)]
pub(super) enum Listener {
    /// On an IP address.
    Tcp(TcpListener),
    /// On a path.
    #[cfg(unix)]
    Unix(tokio::net::UnixListener, std::path::PathBuf),
}

/// The bytes of a connection, whatever carries them.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for T {}

impl Listener {
    /// Binds what the configuration asks for, if it is allowed to.
    pub(super) async fn bind(config: &Config) -> Result<Self, StartError> {
        if config.listen.is_public() {
            if !config.insecure_plaintext {
                return Err(StartError::Plaintext(config.listen.clone()));
            }
            tracing::warn!(
                listen = %config.listen,
                "INSECURE: speaking plaintext on an address that other machines can reach; whoever connects rules the cluster"
            );
        }
        let bound = match &config.listen {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
            Listen::Unix(path) => bind_unix(path).await,
        };
        bound.map_err(|error| StartError::Bind { listen: config.listen.clone(), error })
    }

    /// The address, with the port that was really bound.
    pub(super) fn address(&self) -> io::Result<Listen> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            #[cfg(unix)]
            Listener::Unix(_, path) => Ok(Listen::Unix(path.clone())),
        }
    }

    /// The next connection, and where it comes from.
    pub(super) async fn accept(&self) -> io::Result<(Box<dyn Transport>, Origin)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), from.ip().into()))
            }
            #[cfg(unix)]
            Listener::Unix(listener, _) => Ok((Box::new(listener.accept().await?.0), Origin::Socket)),
        }
    }
}

#[cfg(unix)]
impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self
            && let Err(error) = std::fs::remove_file(&*path)
        {
            tracing::debug!(%error, path = %path.display(), "can't remove the socket");
        }
    }
}

#[cfg(unix)]
async fn bind_unix(path: &std::path::Path) -> io::Result<Listener> {
    let bound = match tokio::net::UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned_socket(path).await => {
            std::fs::remove_file(path)?;
            tokio::net::UnixListener::bind(path)
        }
        bound => bound,
    };
    bound.map(|listener| Listener::Unix(listener, path.to_owned()))
}

/// Whether it is what an apiserver that was killed left behind: a socket, and no other file, at which nobody listens.
#[cfg(unix)]
async fn is_abandoned_socket(path: &std::path::Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && tokio::net::UnixStream::connect(path).await.as_ref().err().is_some_and(refused)
}

#[cfg(not(unix))]
async fn bind_unix(_: &std::path::Path) -> io::Result<Listener> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no unix sockets"))
}

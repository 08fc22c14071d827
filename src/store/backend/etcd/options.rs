use std::fmt;
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::keys::Keys;
use super::kv::{Fault, Kv, Member};
use super::login::Login;

/// Which etcd, and how to speak with it.
#[derive(Clone)]
pub struct EtcdOptions {
    /// `HOST:PORT` of each member that may be asked; there must be one.
    pub members: Vec<String>,
    /// What all of the cluster's keys begin with. See [`EtcdOptions::DEFAULT_PREFIX`].
    pub prefix: String,
    /// Speak TLS.
    pub tls: Option<Tls>,
    /// A user and the password.
    pub login: Option<(String, String)>,
}

/// Certificates, as PEM.
#[derive(Clone)]
pub struct Tls {
    /// Who has signed etcd's certificate.
    pub ca: Vec<u8>,
    /// Ours, and its key, for an etcd that wants one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// How often a connection is checked. etcd closes those that are checked more often than every 5 s.
const KEEPALIVE: Duration = Duration::from_secs(6);
/// How long the answer to such a check may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// What a stream and a connection may have in flight to us, in bytes.
const WINDOW: u32 = 8 * 1024 * 1024;

impl EtcdOptions {
    /// The prefix of a cluster that is told no other.
    pub const DEFAULT_PREFIX: &'static str = "/bluebird/";
    /// The longest prefix, in bytes: it stands in every key of a transaction, which must not become too large for etcd.
    pub const MAX_PREFIX: usize = 64;

    /// Everything by default, but for the members.
    pub fn new(members: impl IntoIterator<Item = String>) -> Self {
        Self { members: members.into_iter().collect(), prefix: Self::DEFAULT_PREFIX.to_owned(), tls: None, login: None }
    }

    pub(super) fn keys(&self) -> Keys {
        Keys::new(self.prefix.clone())
    }

    /// A client; nothing is connected yet.
    pub(super) fn connect(&self) -> Result<Kv, Fault> {
        let members = self.members.iter().map(|address| self.member(address)).collect::<Result<Vec<_>, _>>()?;
        if members.is_empty() {
            return Err(Fault::Refused("no member is named".to_owned()));
        }
        let login = self.login.as_ref().map(|(username, password)| Login::new(username.clone(), password.clone()));
        Ok(Kv::new(members, login))
    }

    fn member(&self, address: &str) -> Result<Member, Fault> {
        let wrong = |error: tonic::transport::Error| {
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Fault::Refused(format!("{address}: {why}"))
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(wrong)?;
        let endpoint = match &self.tls {
            Some(tls) => endpoint.tls_config(tls.config()).map_err(wrong)?,
            None => endpoint,
        };
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        Ok(Member { channel: endpoint.connect_lazy(), address: address.into() })
    }
}

impl Tls {
    fn config(&self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.ca));
        match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }
}

impl fmt::Display for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd://{} ({})", self.members.join(","), self.prefix)
    }
}

/// Without what is secret.
impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.login.as_ref().map(|(username, _)| username);
        f.debug_struct("EtcdOptions")
            .field("members", &self.members)
            .field("prefix", &self.prefix)
            .field("tls", &self.tls.is_some())
            .field("user", &user)
            .finish()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

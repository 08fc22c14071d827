use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::limits::{LimitArgs, Limits};
use super::store_args::StoreArgs;
use crate::store::EtcdOptions;

/// What an apiserver needs to know to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder that holds the cluster's state. Made if there is none; only one apiserver uses it at a time. Not touched when the state is in an etcd.
    pub data_dir: PathBuf,
    /// The etcd that holds the cluster's state instead, for any number of apiservers.
    pub etcd: Option<EtcdOptions>,
    /// Where clients connect.
    pub listen: Listen,
    /// Speak plaintext also on addresses that other machines can reach.
    pub insecure_plaintext: bool,
    /// The range that services have their addresses from, in CIDR notation. It is told to every node that joins, and recorded in the store: another one is
    /// refused later.
    pub service_cidr: String,
    /// How long ago a watch can reach back.
    pub history_age: Duration,
    /// How many revisions a watch can reach back.
    pub history_revisions: usize,
    /// How many bytes of changes are kept for that at most.
    pub history_bytes: usize,
    /// How much one client may ask for.
    pub limits: Limits,
    /// How long a node may be silent before its `Ready` becomes Unknown.
    pub node_grace_period: Duration,
    /// How long other apiservers on the same store wait after this one's last sign of life before they speak for its nodes.
    pub lease_duration: Duration,
    /// How long requests in flight get to finish at shutdown.
    pub shutdown_grace: Duration,
}

impl Config {
    /// The port of an apiserver that is told no other.
    pub const DEFAULT_LISTEN: Listen = Listen::Tcp(SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7443));
    /// Addresses of the loopback network that every Linux and Windows machine already owns.
    pub const DEFAULT_SERVICE_CIDR: &'static str = "127.96.0.0/12";
    /// How long ago a watch can reach back, unless told otherwise.
    pub const DEFAULT_HISTORY_AGE: Duration = Duration::from_secs(60 * 60);
    /// How many revisions a watch can reach back, unless told otherwise.
    pub const DEFAULT_HISTORY_REVISIONS: usize = 100_000;
    /// How many bytes of changes are kept, unless told otherwise.
    pub const DEFAULT_HISTORY_BYTES: usize = 64 * 1024 * 1024;
    /// How long a node may be silent, unless told otherwise.
    pub const DEFAULT_NODE_GRACE_PERIOD: Duration = Duration::from_secs(15);
    /// How long others wait for an apiserver that gives no sign of life.
    pub const DEFAULT_LEASE_DURATION: Duration = Duration::from_secs(10);
    /// How long requests in flight get at shutdown, unless told otherwise.
    pub const DEFAULT_SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

    /// Everything by default, but for the folder and the address.
    pub fn new(data_dir: impl Into<PathBuf>, listen: Listen) -> Self {
        Self {
            data_dir: data_dir.into(),
            etcd: None,
            listen,
            insecure_plaintext: false,
            service_cidr: Self::DEFAULT_SERVICE_CIDR.to_owned(),
            history_age: Self::DEFAULT_HISTORY_AGE,
            history_revisions: Self::DEFAULT_HISTORY_REVISIONS,
            history_bytes: Self::DEFAULT_HISTORY_BYTES,
            limits: Limits::default(),
            node_grace_period: Self::DEFAULT_NODE_GRACE_PERIOD,
            lease_duration: Self::DEFAULT_LEASE_DURATION,
            shutdown_grace: Self::DEFAULT_SHUTDOWN_GRACE,
        }
    }

    /// The folder under the user's data folder that an apiserver uses when it is told no other; `None` on a machine without one.
    pub fn default_data_dir() -> Option<PathBuf> {
        directories::ProjectDirs::from("", "", "bluebird").map(|dirs| dirs.data_dir().join("apiserver"))
    }
}

/// The flags of the apiserver.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "apiserver", version, about = "BlueBird's apiserver: holds the desired state of a cluster and streams every change of it")]
pub struct Args {
    /// The folder that holds the cluster's state [default: `apiserver` in the user's data folder for bluebird]
    #[arg(long, global = true, env = "BLUEBIRD_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// Where clients connect: ADDRESS:PORT (port 0: any free one), or unix:/PATH
    #[arg(long, env = "BLUEBIRD_LISTEN", value_name = "ADDRESS", default_value_t = Config::DEFAULT_LISTEN)]
    listen: Listen,
    /// Speak plaintext also on addresses that other machines can reach. Everybody who can connect then rules the cluster
    #[arg(long, env = "BLUEBIRD_INSECURE_PLAINTEXT")]
    insecure_plaintext: bool,
    /// The range that services have their addresses from. It is the cluster's: a start with another one than before, or than other apiservers have, is refused
    #[arg(long, env = "BLUEBIRD_SERVICE_CIDR", value_name = "CIDR", default_value = Config::DEFAULT_SERVICE_CIDR, value_parser = cidr)]
    service_cidr: String,
    /// For how many seconds a change is kept, so that a watch can resume before it. The time in which no apiserver ran is not counted
    #[arg(long, env = "BLUEBIRD_HISTORY_AGE", value_name = "SECONDS", default_value = "3600", value_parser = seconds)]
    history_age: Duration,
    /// How many revisions a watch can reach back
    #[arg(long, env = "BLUEBIRD_HISTORY_REVISIONS", value_name = "COUNT", default_value_t = Config::DEFAULT_HISTORY_REVISIONS)]
    history_revisions: usize,
    /// How many bytes of changes are kept for that at most
    #[arg(long, env = "BLUEBIRD_HISTORY_BYTES", value_name = "BYTES", default_value_t = Config::DEFAULT_HISTORY_BYTES)]
    history_bytes: usize,
    #[command(flatten)]
    limits: LimitArgs,
    /// How many seconds a node may be silent before its Ready becomes Unknown
    #[arg(long, env = "BLUEBIRD_NODE_GRACE_PERIOD", value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    node_grace_period: Duration,
    /// How many seconds requests in flight get to finish at shutdown
    #[arg(long, env = "BLUEBIRD_SHUTDOWN_GRACE", value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    shutdown_grace: Duration,
    /// What is to be done instead of serving, if anything.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What an apiserver does instead of serving.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Make a new data folder out of a backup, and end
    Restore {
        /// What `bluebird backup` has written
        #[arg(value_name = "FILE")]
        backup: PathBuf,
    },
}

impl Args {
    /// The configuration that the flags ask for.
    ///
    /// # Errors
    /// A sentence, when there is no `--data-dir` and the machine has no folder for user data, or a file that a flag names can't be read.
    pub fn into_config(self) -> Result<Config, String> {
        let (folder, etcd) = self.store.into_place()?;
        if folder.is_some() && self.data_dir.is_some() {
            return Err("--data-dir and --store each name a folder for the state; leave one of them out, and its variable".to_owned());
        }
        let data_dir = folder.or(self.data_dir).or_else(Config::default_data_dir).or_else(|| etcd.is_some().then(PathBuf::new));
        Ok(Config {
            data_dir: data_dir.ok_or("this user has no home folder to keep data in; say where with --data-dir FOLDER")?,
            etcd,
            listen: self.listen,
            insecure_plaintext: self.insecure_plaintext,
            service_cidr: self.service_cidr,
            history_age: self.history_age,
            history_revisions: self.history_revisions,
            history_bytes: self.history_bytes,
            limits: self.limits.into_limits(),
            node_grace_period: self.node_grace_period,
            lease_duration: Config::DEFAULT_LEASE_DURATION,
            shutdown_grace: self.shutdown_grace,
        })
    }
}

/// Where an apiserver can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and port; port 0 is any free one.
    Tcp(SocketAddr),
    /// A unix socket, on systems that have them.
    Unix(PathBuf),
}

impl Listen {
    /// A free port of this machine that only this machine can reach.
    pub const LOCAL: Listen = Listen::Tcp(SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0));

    /// Whether other machines may be able to connect.
    pub fn is_public(&self) -> bool {
        matches!(self, Listen::Tcp(address) if !address.ip().is_loopback())
    }

    /// What a client is given to connect.
    pub fn url(&self) -> String {
        match self {
            Listen::Tcp(address) => format!("http://{address}"),
            Listen::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("unix: needs a path, as in unix:/run/bluebird.sock".to_owned()),
                path => Ok(Listen::Unix(path.into())),
            };
        }
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address = numeric.as_deref().unwrap_or(text).parse();
        address.map(Listen::Tcp).map_err(|_| "must be an IP address and a port, as in 127.0.0.1:7443, or unix:/path".to_owned())
    }
}

fn cidr(text: &str) -> Result<String, String> {
    let parts = text.split_once('/').and_then(|(address, bits)| Some((address.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?)));
    match parts {
        Some((IpAddr::V4(_), bits)) if (8..=30).contains(&bits) => Ok(text.to_owned()),
        _ => Err("must be an IPv4 range of 8 to 30 bits, as in 127.96.0.0/12".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.trim_end_matches('s').parse().map_err(|_| "must be a number of seconds, as in 15 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "must be a number of seconds, as in 15 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn every_flag_has_a_help_line_and_a_variable() {
        for flag in Args::command().get_arguments() {
            let variable = format!("BLUEBIRD_{}", flag.get_id().as_str().to_uppercase());
            assert!(flag.get_help().is_some(), "{flag}");
            assert_eq!(flag.get_env(), Some(std::ffi::OsStr::new(&variable)), "{flag}");
        }
    }

    #[test]
    fn without_flags_it_is_the_documented_default() {
        let config = Args::parse_from(["apiserver", "--data-dir", "d"]).into_config().unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::new("d", Config::DEFAULT_LISTEN)));
    }

    #[test]
    fn listen_addresses_are_read_and_judged() {
        let public = |text: &str| text.parse::<Listen>().map(|listen| listen.is_public());
        assert_eq!(public("127.0.0.1:7443"), Ok(false));
        assert_eq!(public("[::1]:7443"), Ok(false));
        assert_eq!(public("localhost:0"), Ok(false));
        assert_eq!(public("unix:/tmp/s"), Ok(false));
        assert_eq!(public("0.0.0.0:7443"), Ok(true));
        assert_eq!(public("10.0.0.1:7443"), Ok(true));
        for wrong in ["", "7443", "127.0.0.1", "unix:", "example.com:80"] {
            assert!(public(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_malformed_duration_or_range_is_refused() {
        let parse = |flag: &str, value: &str| Args::try_parse_from(["apiserver", flag, value]).is_ok();
        assert!(parse("--node-grace-period", "0.5") && parse("--node-grace-period", "15s"));
        assert!(!parse("--node-grace-period", "-1") && !parse("--node-grace-period", "soon"));
        assert!(parse("--service-cidr", "10.96.0.0/16"));
        assert!(!parse("--service-cidr", "10.96.0.0") && !parse("--service-cidr", "10.96.0.0/31") && !parse("--service-cidr", "::/64"));
    }
}

//! What a router does at the moment, for people and for the node's status.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// What a router does at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for the services, or for the machine's routing lock.
    Starting,
    /// It routes. `unbound` are the service addresses that can't be listened on for now, and why.
    Active {
        /// Address → the operating system's reason.
        unbound: BTreeMap<SocketAddr, String>,
    },
    /// Another kubelet of this cluster on the same machine routes; this one takes over when that ends.
    Standby {
        /// The other one's process.
        holder_pid: u32,
    },
    /// Services can't be reached from this machine, for this reason. It keeps trying.
    Blocked(String),
}

impl State {
    /// Notes trouble with one address, or its end; whether that changed anything.
    pub(super) fn set_unbound(&mut self, frontend: SocketAddr, trouble: Option<String>) -> bool {
        let State::Active { unbound } = self else { return false };
        match trouble {
            Some(trouble) => unbound.insert(frontend, trouble.clone()).as_ref() != Some(&trouble),
            None => unbound.remove(&frontend).is_some(),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Starting => f.write_str("starting"),
            State::Active { unbound } => {
                f.write_str("routing")?;
                for (frontend, trouble) in unbound {
                    write!(f, "; can't listen on {frontend}: {trouble}")?;
                }
                Ok(())
            }
            State::Standby { holder_pid } => write!(f, "standing by: process {holder_pid} routes for this machine"),
            State::Blocked(why) => f.write_str(why),
        }
    }
}

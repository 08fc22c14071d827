//! One kubelet of a machine routes, the others stand by.
//!
//! The lock is a TCP listener on the first address of the service range, which no service ever gets: the operating system gives it to one
//! process and takes it back when that process ends, however it ends. The holder greets each connection with one line; a standby keeps such a
//! connection open, and its end is the sign to take over.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::state::State;

/// The port of the machine's routing lock, at the first address of the service range.
pub const LOCK_PORT: u16 = 10256;
/// The first word of the greeting.
const GREETING: &str = "bluebird-routes";
/// The longest line that can be a greeting.
const MAX_GREETING: u64 = 256;
/// How long a holder gets to greet.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// How many standbys a holder keeps connections to. Further ones wait in the listener's queue, and try again.
const MAX_STANDBYS: usize = 64;
/// How long to wait before the next try, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// The address of the lock for a service range in CIDR notation; `None` if it isn't one.
pub(super) fn lock_address(service_cidr: &str) -> Option<SocketAddr> {
    let (address, prefix) = service_cidr.split_once('/')?;
    let prefix: u32 = prefix.parse().ok()?;
    let first: IpAddr = match address.parse().ok()? {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32u32.checked_sub(prefix)?).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128u32.checked_sub(prefix)?).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    };
    Some(SocketAddr::new(first, LOCK_PORT))
}

/// The right to route on this machine, for as long as it lives.
pub(super) struct Lock {
    listener: TcpListener,
    greeting: Arc<str>,
}

/// Waits until this process may route; tells `state` what it waits for.
pub(super) async fn acquire(address: SocketAddr, cluster_id: &str, state: &watch::Sender<State>) -> Lock {
    let mut wait = RETRY.0;
    loop {
        let why = match TcpListener::bind(address).await {
            Ok(listener) => return Lock { listener, greeting: format!("{GREETING} {cluster_id} {}\n", std::process::id()).into() },
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match Holder::meet(address).await {
                Ok(holder) => {
                    tell(state, holder.seen_by(cluster_id));
                    holder.gone().await;
                    wait = RETRY.0;
                    continue;
                }
                Err(Meeting::Gone) => {
                    wait = RETRY.0;
                    None
                }
                Err(Meeting::Stranger) => {
                    Some(format!("{address}, which the router of a machine has to itself, is held by a program that does not greet as one"))
                }
            },
            Err(error) => Some(format!("can't listen on {address}, the first address of the service range: {error}")),
        };
        if let Some(why) = why {
            tell(state, State::Blocked(why));
        }
        tokio::time::sleep(wait.mul_f32(0.5 + fastrand::f32())).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

fn tell(state: &watch::Sender<State>, now: State) {
    state.send_if_modified(|state| {
        let changed = *state != now;
        if changed {
            tracing::info!("services on this machine: {now}");
            *state = now;
        }
        changed
    });
}

impl Lock {
    /// Greets standbys; never returns.
    pub(super) async fn serve(&self) -> std::convert::Infallible {
        let seats = Arc::new(Semaphore::new(MAX_STANDBYS));
        let mut standbys = JoinSet::new();
        loop {
            while standbys.try_join_next().is_some() {}
            let seat = seats.clone().acquire_owned().await.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let greeting = self.greeting.clone();
                    standbys.spawn(async move {
                        let _seat = seat;
                        if let Err(error) = keep_company(stream, &greeting).await {
                            tracing::debug!(%error, "a standby went away");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept a standby; trying again");
                    tokio::time::sleep(RETRY.1).await;
                }
            }
        }
    }
}

/// Greets, and stays connected until the standby goes away.
async fn keep_company(mut stream: TcpStream, greeting: &str) -> io::Result<()> {
    stream.write_all(greeting.as_bytes()).await?;
    drain(&mut stream).await
}

async fn drain(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<()> {
    let mut ignored = [0; 64];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// The process that has the lock.
struct Holder {
    stream: BufReader<TcpStream>,
    cluster_id: String,
    pid: u32,
}

/// Why there was no meeting.
enum Meeting {
    /// The holder ended meanwhile.
    Gone,
    /// It isn't a kubelet, or one that doesn't react.
    Stranger,
}

impl Holder {
    async fn meet(address: SocketAddr) -> Result<Holder, Meeting> {
        let greeted = async {
            let mut stream = BufReader::new(TcpStream::connect(address).await?);
            let mut line = String::new();
            (&mut stream).take(MAX_GREETING).read_line(&mut line).await?;
            Ok::<_, io::Error>((stream, line))
        };
        let (stream, line) = match tokio::time::timeout(GREETING_TIMEOUT, greeted).await {
            Ok(Ok((_, line))) if line.is_empty() => return Err(Meeting::Gone),
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => return Err(Meeting::Stranger),
            Ok(Err(_)) => return Err(Meeting::Gone),
            Err(_) => return Err(Meeting::Stranger),
        };
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next().and_then(|pid| pid.parse().ok())) {
            (Some(GREETING), Some(cluster_id), Some(pid)) => Ok(Holder { stream, cluster_id: cluster_id.to_owned(), pid }),
            _ => Err(Meeting::Stranger),
        }
    }

    fn seen_by(&self, cluster_id: &str) -> State {
        match self.cluster_id == cluster_id {
            true => State::Standby { holder_pid: self.pid },
            false => State::Blocked(format!(
                "process {} routes services of another cluster ({}) on this machine; give this cluster a service range of its own",
                self.pid, self.cluster_id
            )),
        }
    }

    /// Returns when the holder has ended.
    async fn gone(mut self) {
        if let Err(error) = drain(&mut self.stream).await {
            tracing::debug!(%error, "the connection to the holder of the routing lock broke");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_at_the_first_address_of_the_range() {
        let text = |cidr| lock_address(cidr).map(|address| address.to_string());
        assert_eq!(text("127.96.0.0/12").as_deref(), Some("127.96.0.0:10256"));
        assert_eq!(text("127.97.3.7/24").as_deref(), Some("127.97.3.0:10256"));
        assert_eq!(text("0.0.0.0/0").as_deref(), Some("0.0.0.0:10256"));
        assert_eq!(text("fd00::1:5/112").as_deref(), Some("[fd00::1:0]:10256"));
        for bad in ["127.96.0.0", "127.96.0.0/33", "x/12", "127.96.0.0/x"] {
            assert_eq!(text(bad), None);
        }
    }
}

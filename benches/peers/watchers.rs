//! Many watches of one server, and what they have seen.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tonic::codec::Streaming;
use tonic::transport::Channel;

use crate::common::peer::Peer;
use crate::common::report::latencies;
use crate::common::server::Server;
use crate::common::sized;
use crate::common::wire::{CONNECTIONS, Method, connect};

/// How long the last events may take to arrive after the last write.
const DRAIN_DEADLINE: Duration = Duration::from_secs(120);
/// Writes are numbered through the whole case; when each was sent is remembered up to this number.
const MAX_WRITES: usize = 1 << 20;

/// What the watchers have seen, shared by all of them.
pub(crate) struct Seen {
    /// Microseconds since `epoch` at which each write was sent, by its number.
    sent: Vec<AtomicU64>,
    epoch: Instant,
    deliveries: AtomicU64,
    /// One for each connection, so that streams rarely wait for each other.
    latency: Vec<Mutex<Histogram<u64>>>,
    ended: AtomicBool,
}

impl Seen {
    /// How many events have arrived since the beginning.
    pub(crate) fn deliveries(&self) -> u64 {
        self.deliveries.load(Ordering::Relaxed)
    }

    /// Notes that the write of this number is sent now.
    pub(crate) fn sends(&self, number: u64) {
        self.sent[number as usize % self.sent.len()].store(self.epoch.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    fn has_arrived(&self, peer: Peer, connection: usize, response: &[u8]) {
        let now = self.epoch.elapsed().as_micros() as u64;
        let mut events = 0;
        let mut latency = self.latency[connection].lock().expect("no panic while held");
        peer.numbers_in(response, |number| {
            let sent = self.sent[number as usize % self.sent.len()].load(Ordering::Relaxed);
            latency.saturating_record(now.saturating_sub(sent));
            events += 1;
        });
        drop(latency);
        self.deliveries.fetch_add(events, Ordering::Relaxed);
    }
}

/// Watches that last until this goes out of scope.
pub(crate) struct Watchers {
    pub(crate) seen: Arc<Seen>,
    _receiving: JoinSet<()>,
}

impl Watchers {
    /// So many watches over [`CONNECTIONS`] connections, each of everything or of the node that `node` names for it.
    pub(crate) async fn open(server: &Server, watchers: usize, node: impl Fn(u64) -> Option<u64>) -> anyhow::Result<Self> {
        let channels = connect(&server.url, CONNECTIONS).await?;
        let seen = Arc::new(Seen {
            sent: (0..sized(MAX_WRITES, MAX_WRITES / 16)).map(|_| AtomicU64::new(0)).collect(),
            epoch: Instant::now(),
            deliveries: AtomicU64::new(0),
            latency: channels.iter().map(|_| Mutex::new(latencies())).collect(),
            ended: AtomicBool::new(false),
        });
        let mut receiving = JoinSet::new();
        for watcher in 0..watchers {
            let connection = watcher % channels.len();
            let stream = open_stream(&channels[connection], server.peer, server.peer.watch_request(node(watcher as u64)))
                .await
                .context("opening a watch")?;
            receiving.spawn(receive(stream, server.peer, seen.clone(), connection));
        }
        Ok(Self { seen, _receiving: receiving })
    }

    /// Waits until exactly so many events have arrived since the beginning.
    pub(crate) async fn drained(&self, expected: u64) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.seen.deliveries() < expected {
            self.all_run()?;
            if start.elapsed() > DRAIN_DEADLINE {
                bail!("{} of {expected} events arrived", self.seen.deliveries());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let arrived = self.seen.deliveries();
        ensure!(arrived == expected, "{arrived} events arrived, more than the {expected} that there are");
        Ok(())
    }

    /// Fails when a watch has ended.
    pub(crate) fn all_run(&self) -> anyhow::Result<()> {
        ensure!(!self.seen.ended.load(Ordering::Relaxed), "a watch ended");
        Ok(())
    }

    /// Takes the latencies since they were taken last.
    pub(crate) fn take_latency(&self) -> anyhow::Result<Histogram<u64>> {
        let mut sum = latencies();
        for part in &self.seen.latency {
            let mut part = part.lock().expect("no panic while held");
            sum.add(&*part).context("the same bounds")?;
            part.reset();
        }
        Ok(sum)
    }
}

/// Opens a watch.
pub(crate) async fn open_stream(channel: &Channel, peer: Peer, request: Bytes) -> anyhow::Result<Streaming<Bytes>> {
    let mut method = Method::new(channel, peer.watch());
    match peer {
        Peer::Bluebird => Ok(method.open(request).await?),
        // Its watch method takes further requests on the same stream, and says first that the watch was created.
        Peer::Etcd => {
            let mut stream = method.open_both(request).await?;
            stream.message().await?.context("a watch ended before it was created")?;
            Ok(stream)
        }
    }
}

async fn receive(mut stream: Streaming<Bytes>, peer: Peer, seen: Arc<Seen>, connection: usize) {
    while let Ok(Some(response)) = stream.message().await {
        seen.has_arrived(peer, connection, &response);
    }
    seen.ended.store(true, Ordering::Relaxed);
}

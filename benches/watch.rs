//! Watch fan-out: what a delivery costs when everybody is interested, and what a write costs when nearly nobody is.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use common::pods::Template;
use common::report::{Load, Report, Row, latencies};
use common::server::{Apiserver, Etcd, Process, cpu_between};
use common::wire::{CONNECTIONS, Method, connect};
use common::writers::Target;
use common::{etcd, is_wanted, measured_time, pods, quick, run, sized, warm_up_time};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tonic::codec::Streaming;
use tonic::transport::Channel;

/// At full speed writers pause while so many writes have not reached all watchers, so that the latency is not that of a queue without end.
const WINDOW: u64 = 64;
/// How long the last events may take to arrive after the last write.
const DRAIN_DEADLINE: Duration = Duration::from_secs(120);
/// Pods are numbered through the whole case; when each was sent is remembered up to this number.
const MAX_WRITES: usize = 1 << 20;

/// One line of the table.
#[derive(Clone, Copy)]
struct Case {
    watchers: usize,
    interest: Interest,
    pace: Pace,
}

#[derive(Clone, Copy, PartialEq)]
enum Interest {
    /// Every watcher gets every event.
    All,
    /// Every watcher watches its own node, and every event is of one node.
    OneInN,
}

#[derive(Clone, Copy)]
enum Pace {
    /// So many writers at once, each with one write at a time.
    Full { writers: usize },
    /// So many writes a second.
    PerSecond(u32),
}

/// The server's side of the wire.
struct Server {
    name: &'static str,
    target: Target,
    watch: &'static str,
    /// etcd's watch method takes further requests on the same stream.
    bidirectional: bool,
    request: fn(Option<u64>) -> Bytes,
    numbers: fn(&[u8], &mut dyn FnMut(u64)),
}

fn main() {
    run("watch", bench);
}

async fn bench(mut report: Report) -> anyhow::Result<()> {
    report.settings(&format!(
        "16 connections, one stream per watcher; an operation is a delivery (all interested) or a write (one in N interested); latency from the \
         sending of the write to the receipt of the event; at full speed 16 writers, paused while {WINDOW} writes are undelivered; measured {:?} \
         and until the last event has arrived",
        measured_time()
    ));
    let full = Pace::Full { writers: 16 };
    let all = |watchers, pace| Case { watchers, interest: Interest::All, pace };
    let one = |watchers| Case { watchers, interest: Interest::OneInN, pace: Pace::Full { writers: 1 } };
    let cases = if quick() {
        vec![all(10, full), one(10)]
    } else {
        vec![all(10, full), all(1000, full), all(1000, Pace::PerSecond(40)), all(10_000, full), one(10), one(1000), one(10_000)]
    };
    for case in cases.into_iter().filter(|case| is_wanted(&case.name())) {
        let apiserver = Apiserver::start()?;
        let ours = measure(&mut report, case, &bluebird(apiserver.url.clone()), &apiserver.process).await?;
        drop(apiserver);
        let Some(etcd) = Etcd::start()? else {
            report.note("etcd is not compared: there is no `etcd` in PATH (Debian: apt-get install etcd-server)");
            continue;
        };
        match measure(&mut report, case, &etcd_server(etcd.url.clone()), &etcd.process).await {
            Ok(theirs) => report.note(&format!("{:.2} × etcd", ours / theirs)),
            Err(error) => report.note(&format!("etcd failed in this case: {error:#}")),
        }
    }
    Ok(())
}

fn bluebird(url: String) -> Server {
    Server {
        name: "",
        target: Target { url, method: "/bluebird.v1.ControlPlaneService/Create", request: pods::create_request(true) },
        watch: "/bluebird.v1.ControlPlaneService/Watch",
        bidirectional: false,
        request: pods::watch_request,
        numbers: |response, take| pods::numbers_in(response).for_each(take),
    }
}

fn etcd_server(url: String) -> Server {
    Server {
        name: "etcd: ",
        target: Target { url, method: etcd::PUT, request: etcd::put_request() },
        watch: etcd::WATCH,
        bidirectional: true,
        request: etcd::watch_request,
        numbers: |response, take| etcd::numbers_in(response).for_each(take),
    }
}

impl Case {
    fn name(&self) -> String {
        let interest = if self.interest == Interest::All { "all" } else { "one" };
        let pace = match self.pace {
            Pace::Full { writers: 1 } => "one writer".to_owned(),
            Pace::Full { .. } => "full speed".to_owned(),
            Pace::PerSecond(rate) => format!("{rate}/s"),
        };
        format!("{} watchers, {interest} interested, {pace}", self.watchers)
    }

    fn deliveries_per_write(&self) -> u64 {
        if self.interest == Interest::All { self.watchers as u64 } else { 1 }
    }
}

async fn measure(report: &mut Report, case: Case, server: &Server, process: &Process) -> anyhow::Result<f64> {
    let memory_before = process.rss();
    let watchers = Watchers::open(case, server).await?;
    if let (Some(before), Some(after)) = (memory_before, process.rss()) {
        let each = after.saturating_sub(before) as f64 / case.watchers as f64 / 1024.0;
        report.note(&format!(
            "{}{:.1} MiB with {} idle watchers, {each:.1} KiB each",
            server.name,
            after as f64 / 1048576.0,
            case.watchers
        ));
    }
    let writing = Writing::new(case, server).await?;
    writing.write(&watchers, warm_up_time()).await?;
    watchers.drained(writing.written() * case.deliveries_per_write()).await?;
    watchers.seen.latency.iter().for_each(|latency| latency.lock().expect("no panic while held").reset());

    let (before, start, cpu) = (writing.written(), Instant::now(), process.cpu());
    writing.write(&watchers, measured_time()).await?;
    let write_time = start.elapsed();
    watchers.drained(writing.written() * case.deliveries_per_write()).await?;
    let (time, server_cpu) = (start.elapsed(), cpu_between(cpu, process.cpu()));

    let writes = writing.written() - before;
    let mut latency = latencies();
    for part in &watchers.seen.latency {
        latency.add(&*part.lock().expect("no panic while held")).context("the same bounds")?;
    }
    let operations = writes * case.deliveries_per_write();
    let (load, server_rss) = (Load::Watchers(case.watchers), process.rss());
    let rate =
        report.row(&Row { case: format!("{}{}", server.name, case.name()), load, operations, time, latency, server_cpu, server_rss })?;
    report.note(&format!("{}{:.0} writes/s meanwhile", server.name, writes as f64 / write_time.as_secs_f64()));
    Ok(rate)
}

/// What the watchers have seen, shared by all of them.
struct Seen {
    /// Nanoseconds since `epoch` at which each write was sent, by its number.
    sent: Vec<AtomicU64>,
    epoch: Instant,
    deliveries: AtomicU64,
    /// One for each connection, so that streams rarely wait for each other.
    latency: Vec<Mutex<Histogram<u64>>>,
    ended: AtomicBool,
}

struct Watchers {
    seen: Arc<Seen>,
    _receiving: JoinSet<()>,
}

impl Watchers {
    async fn open(case: Case, server: &Server) -> anyhow::Result<Self> {
        let channels = connect(&server.target.url, CONNECTIONS).await?;
        let seen = Arc::new(Seen {
            sent: (0..sized(MAX_WRITES, MAX_WRITES / 16)).map(|_| AtomicU64::new(0)).collect(),
            epoch: Instant::now(),
            deliveries: AtomicU64::new(0),
            latency: channels.iter().map(|_| Mutex::new(latencies())).collect(),
            ended: AtomicBool::new(false),
        });
        let mut receiving = JoinSet::new();
        for watcher in 0..case.watchers {
            let connection = watcher % channels.len();
            let node = (case.interest == Interest::OneInN).then_some(watcher as u64);
            let mut stream = open_stream(&channels[connection], server, (server.request)(node)).await.context("opening a watch")?;
            if server.bidirectional {
                stream.message().await?.context("a watch ended before it was created")?;
            }
            receiving.spawn(receive(stream, seen.clone(), connection, server.numbers));
        }
        Ok(Self { seen, _receiving: receiving })
    }

    fn deliveries(&self) -> u64 {
        self.seen.deliveries.load(Ordering::Relaxed)
    }

    /// Waits until exactly so many events have arrived since the beginning.
    async fn drained(&self, expected: u64) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.deliveries() < expected {
            if self.seen.ended.load(Ordering::Relaxed) {
                bail!("a watch ended");
            }
            if start.elapsed() > DRAIN_DEADLINE {
                bail!("{} of {expected} events arrived", self.deliveries());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        anyhow::ensure!(self.deliveries() == expected, "{} events arrived, more than the {expected} that there are", self.deliveries());
        Ok(())
    }
}

async fn open_stream(channel: &Channel, server: &Server, request: Bytes) -> Result<Streaming<Bytes>, tonic::Status> {
    let mut method = Method::new(channel, server.watch);
    if server.bidirectional { method.open_both(request).await } else { method.open(request).await }
}

async fn receive(mut stream: Streaming<Bytes>, seen: Arc<Seen>, connection: usize, numbers: fn(&[u8], &mut dyn FnMut(u64))) {
    while let Ok(Some(response)) = stream.message().await {
        let now = seen.epoch.elapsed().as_nanos() as u64;
        let mut events = 0;
        let mut latency = seen.latency[connection].lock().expect("no panic while held");
        numbers(&response, &mut |number| {
            let sent = seen.sent[number as usize % seen.sent.len()].load(Ordering::Relaxed);
            latency.saturating_record(now.saturating_sub(sent) / 1000);
            events += 1;
        });
        drop(latency);
        seen.deliveries.fetch_add(events, Ordering::Relaxed);
    }
    seen.ended.store(true, Ordering::Relaxed);
}

/// Those who write. They number their writes through the whole case.
struct Writing {
    case: Case,
    request: Template,
    methods: Vec<Method>,
    next: Arc<AtomicU64>,
}

impl Writing {
    async fn new(case: Case, server: &Server) -> anyhow::Result<Self> {
        let writers = match case.pace {
            Pace::Full { writers } => writers,
            Pace::PerSecond(_) => 1,
        };
        let channels = connect(&server.target.url, writers).await?;
        let methods = (0..writers).map(|writer| Method::new(&channels[writer % channels.len()], server.target.method)).collect();
        Ok(Self { case, request: server.target.request.clone(), methods, next: Arc::default() })
    }

    fn written(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Writes for so long; every write that was begun is answered when this returns.
    async fn write(&self, watchers: &Watchers, duration: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + duration;
        let mut running = JoinSet::new();
        for method in self.methods.iter().cloned() {
            running.spawn(write_until(end, self.case, method, self.request.clone(), self.next.clone(), watchers.seen.clone()));
        }
        while let Some(writer) = running.join_next().await {
            writer??;
        }
        Ok(())
    }
}

async fn write_until(
    end: Instant,
    case: Case,
    mut method: Method,
    request: Template,
    next: Arc<AtomicU64>,
    seen: Arc<Seen>,
) -> anyhow::Result<()> {
    let mut ticks = match case.pace {
        Pace::PerSecond(rate) => Some(tokio::time::interval(Duration::from_secs(1) / rate)),
        Pace::Full { .. } => None,
    };
    while Instant::now() < end {
        match &mut ticks {
            Some(ticks) => drop(ticks.tick().await),
            None => {
                let arrived = seen.deliveries.load(Ordering::Relaxed) / case.deliveries_per_write();
                if next.load(Ordering::Relaxed).saturating_sub(arrived) >= WINDOW {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
            }
        }
        let number = next.fetch_add(1, Ordering::Relaxed);
        seen.sent[number as usize % seen.sent.len()].store(seen.epoch.elapsed().as_nanos() as u64, Ordering::Relaxed);
        let node = number.wrapping_mul(7919) % case.watchers as u64;
        method.call(request.fill(number, node)).await.context("a write failed")?;
    }
    Ok(())
}

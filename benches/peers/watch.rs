//! Watch fan-out: what a delivery costs when everybody is interested, and what a write costs when nearly nobody is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinSet;

use crate::common::objects::What;
use crate::common::peer::{Peer, Write};
use crate::common::report::{Figures, Report, Row, memory_of};
use crate::common::server::{Server, cpu_between};
use crate::common::wire::{Method, connect};
use crate::common::{is_wanted, measured_time, quick, warm_up_time};
use crate::compare;
use crate::watchers::{Seen, Watchers};

/// At full speed writers pause while so many writes have not reached all watchers, so that the latency is not that of a queue without end.
const WINDOW: u64 = 64;

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

pub(crate) async fn bench(report: &mut Report, peers: &[Peer]) -> anyhow::Result<()> {
    let cases: Vec<Case> = cases().into_iter().filter(|case| is_wanted(&case.name())).collect();
    if cases.is_empty() {
        return Ok(());
    }
    report.settings(&format!(
        "watches of pods over 16 connections, one stream each; an operation is a delivery (all interested) or a write (one in N interested); \
         latency from the sending of the write to the receipt of the event; at full speed 16 writers, paused while {WINDOW} writes are \
         undelivered; measured {:?} and until the last event has arrived",
        measured_time()
    ));
    for case in cases {
        let mut figures = Vec::new();
        for peer in peers {
            match measure(report, case, &Server::start(*peer).await?).await {
                Ok(row) => figures.push(row),
                Err(error) if *peer != Peer::Bluebird => report.note(&format!("{} failed in this case: {error:#}", peer.name())),
                Err(error) => return Err(error),
            }
        }
        compare(report, &figures);
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let full = Pace::Full { writers: 16 };
    let all = |watchers, pace| Case { watchers, interest: Interest::All, pace };
    let one = |watchers| Case { watchers, interest: Interest::OneInN, pace: Pace::Full { writers: 1 } };
    if quick() {
        return vec![all(10, full), one(10)];
    }
    let interested = [all(10, full), all(1000, full), all(10_000, full), all(1000, Pace::PerSecond(40))];
    interested.into_iter().chain([10, 100, 1000, 10_000].map(one)).collect()
}

impl Case {
    fn name(&self) -> String {
        let (start, interest) = if self.interest == Interest::All { ("watch", "all") } else { ("nodes", "one") };
        let pace = match self.pace {
            Pace::Full { writers: 1 } => "one writer".to_owned(),
            Pace::Full { .. } => "full speed".to_owned(),
            Pace::PerSecond(rate) => format!("{rate}/s"),
        };
        format!("{start}: {} watchers, {interest} interested, {pace}", self.watchers)
    }

    fn deliveries_per_write(&self) -> u64 {
        if self.interest == Interest::All { self.watchers as u64 } else { 1 }
    }
}

async fn measure(report: &mut Report, case: Case, server: &Server) -> anyhow::Result<Figures> {
    let process = &server.process;
    let watchers = Watchers::open(server, case.watchers, |watcher| (case.interest == Interest::OneInN).then_some(watcher)).await?;
    let writing = Writing::new(case, server).await?;
    writing.write(&watchers, warm_up_time()).await?;
    watchers.drained(writing.written() * case.deliveries_per_write()).await?;
    watchers.take_latency()?;

    let (before, start, cpu) = (writing.written(), Instant::now(), process.cpu());
    writing.write(&watchers, measured_time()).await?;
    let write_time = start.elapsed();
    watchers.drained(writing.written() * case.deliveries_per_write()).await?;
    let (time, server_cpu) = (start.elapsed(), cpu_between(cpu, process.cpu()));

    let writes = writing.written() - before;
    let figures = report.row(&Row {
        case: case.name(),
        who: server.peer.name(),
        operations: writes * case.deliveries_per_write(),
        time,
        latency: watchers.take_latency()?,
        server_cpu,
        memory: memory_of(process),
    })?;
    report.note(&format!("{}: {:.0} writes/s meanwhile", server.peer.name(), writes as f64 / write_time.as_secs_f64()));
    Ok(figures)
}

/// Those who write. They number their writes through the whole case.
struct Writing {
    case: Case,
    write: Write,
    methods: Vec<Method>,
    next: Arc<AtomicU64>,
}

impl Writing {
    async fn new(case: Case, server: &Server) -> anyhow::Result<Self> {
        let writers = match case.pace {
            Pace::Full { writers } => writers,
            Pace::PerSecond(_) => 1,
        };
        let (write, channels) = (server.peer.put(What::Pod), connect(&server.url, writers).await?);
        let methods = (0..writers).map(|writer| Method::new(&channels[writer % channels.len()], write.method)).collect();
        Ok(Self { case, write, methods, next: Arc::default() })
    }

    fn written(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Writes for so long; every write that was begun is answered when this returns.
    async fn write(&self, watchers: &Watchers, duration: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + duration;
        let mut running = JoinSet::new();
        for method in self.methods.iter().cloned() {
            running.spawn(write_until(end, self.case, method, self.write.clone(), self.next.clone(), watchers.seen.clone()));
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
    write: Write,
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
                let arrived = seen.deliveries() / case.deliveries_per_write();
                if next.load(Ordering::Relaxed).saturating_sub(arrived) >= WINDOW {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
            }
        }
        let number = next.fetch_add(1, Ordering::Relaxed);
        seen.sends(number);
        let node = number.wrapping_mul(7919) % case.watchers as u64;
        method.call(write.request.fill(number, node)).await.context("a write failed")?;
    }
    Ok(())
}

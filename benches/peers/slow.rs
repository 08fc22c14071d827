//! What a server holds in memory for watchers whose network is far too slow, and whether they are sent everything when it isn't any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bluebird::testing::{Cable, Link};
use bytes::Bytes;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::common::objects::What;
use crate::common::peer::{BATCH, Peer};
use crate::common::report::{Figures, Report, Row, latencies, memory_of, mib};
use crate::common::server::{Process, Server, cpu_between};
use crate::common::wire::{CONNECTIONS, Method, connect};
use crate::common::writers::write_so_many;
use crate::common::{is_wanted, sized};
use crate::compare;
use crate::watchers::open_stream;

/// How many objects are there before anybody watches, each of its own revision.
const OBJECTS: u64 = 64;
/// How long a server has done nothing when it has done what it can.
const QUIET: Duration = Duration::from_secs(1);

pub(crate) async fn bench(report: &mut Report, peers: &[Peer]) -> anyhow::Result<()> {
    let watches = sized(10_000, 50);
    let case = format!("memory: {watches} watches behind a slow network");
    if !is_wanted(&case) {
        return Ok(());
    }
    report.settings(&format!(
        "slow network: over {CONNECTIONS} connections that let requests through and no answers, each watch asks for everything since the beginning, which is \
         {OBJECTS} revisions with a pod of 1 KiB each, and {BATCH} more at one revision that are written meanwhile; then the answers flow, and an operation is \
         a delivery"
    ));
    let mut figures = Vec::new();
    for peer in peers {
        figures.push(measure(report, case.clone(), *peer, watches).await?);
    }
    compare(report, &figures);
    Ok(())
}

async fn measure(report: &mut Report, case: String, peer: Peer, watches: usize) -> anyhow::Result<Figures> {
    let server = Server::start(peer).await?;
    write_so_many(&server, &peer.put(What::Pod), CONNECTIONS, OBJECTS).await?;
    let cable = Cable::new(server.url.trim_start_matches("http://").parse()?).await?;
    let channels = connect(&cable.url(), CONNECTIONS).await?;
    for channel in &channels {
        // Known to each other before nothing comes back any more.
        let (path, request) = peer.get(What::Pod, 0);
        match Method::new(channel, path).call(request).await {
            Err(status) if status.code() != tonic::Code::NotFound => return Err(status.into()),
            _ => {}
        }
    }
    idle(&server.process).await;
    let before = server.process.rss();

    cable.set_link(Link::Clogged);
    let (arrived, mut following) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
    for watch in 0..watches {
        following.spawn(follow(channels[watch % channels.len()].clone(), peer, arrived.clone()));
    }
    idle(&server.process).await;
    let start = Instant::now();
    write_so_many(&server, &peer.batch(What::Pod), 1, 1).await?;
    let write_time = start.elapsed();
    idle(&server.process).await;
    ensure!(arrived.load(Ordering::Relaxed) == 0, "something came through");
    let stuck = server.process.rss();

    let (start, cpu) = (Instant::now(), server.process.cpu());
    cable.set_link(Link::Good);
    while let Some(watch) = following.join_next().await {
        watch?.context("a watch of a slow network")?;
    }
    let row = Row {
        case,
        who: peer.name(),
        operations: arrived.load(Ordering::Relaxed),
        time: start.elapsed(),
        latency: latencies(),
        server_cpu: cpu_between(cpu, server.process.cpu()),
        memory: memory_of(&server.process),
    };
    let figures = report.row(&row)?;
    let each = |now: Option<u64>| now.zip(before).map_or(0.0, |(now, before)| now.saturating_sub(before) as f64 / watches as f64 / 1024.0);
    let (peak, ms) = (row.memory.1, write_time.as_secs_f64() * 1000.0);
    report.note(&format!(
        "{}: {} MiB before, {} MiB while nothing came through ({:.1} KiB for each watch), {} at the most ({:.1} KiB); the write meanwhile took {ms:.1} ms",
        peer.name(),
        mib(before),
        mib(stuck),
        each(stuck),
        mib(peak),
        each(peak)
    ));
    if peer == Peer::Bluebird {
        report.note(&format!("the stated bound: 64 MiB and 24 KiB for each watch, here {} MiB", 64 + watches * 24 / 1024));
    }
    Ok(figures)
}

/// One watch, until it was sent everything.
async fn follow(channel: Channel, peer: Peer, arrived: Arc<AtomicU64>) -> anyhow::Result<()> {
    let mut stream = open_stream(&channel, peer, peer.watch_request_from_the_beginning()).await?;
    let mut rest = OBJECTS + BATCH;
    while rest > 0 {
        let message: Bytes = stream.message().await?.context("it ended")?;
        let mut events = 0;
        peer.numbers_in(&message, |_| events += 1);
        rest = rest.checked_sub(events).context("more events than there are")?;
        arrived.fetch_add(events, Ordering::Relaxed);
    }
    Ok(())
}

/// Returns when a server has done nothing for a while.
async fn idle(process: &Process) {
    let mut last = process.cpu();
    loop {
        tokio::time::sleep(sized(QUIET, QUIET / 10)).await;
        let now = process.cpu();
        // A tick or two are those of a server that has nothing to do.
        if cpu_between(last, now).is_none_or(|used| used <= Duration::from_millis(30)) {
            return;
        }
        last = now;
    }
}

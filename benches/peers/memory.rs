//! What a server weighs: idle, with idle watches, with many objects; and how soon it answers again after `kill -9`.

use std::time::{Duration, Instant};

use anyhow::ensure;
use hdrhistogram::Histogram;

use crate::common::objects::What;
use crate::common::peer::{BATCH, Peer};
use crate::common::report::{Figures, Report, Row, latencies, memory_of, mib};
use crate::common::server::Server;
use crate::common::writers::write_so_many;
use crate::common::{is_wanted, quick, sized};
use crate::compare;
use crate::watchers::Watchers;

/// How many clients fill a server.
const FILLING: usize = 16;

pub(crate) async fn bench(report: &mut Report, peers: &[Peer]) -> anyhow::Result<()> {
    let mut restarts = vec![(What::Lease, sized(100_000, 1_000), sized(5, 1)), (What::Pod, sized(100_000, 1_000), sized(3, 1))];
    if !quick() {
        restarts.push((What::Lease, 1_000_000, 3));
    }
    restarts.retain(|(what, objects, _)| is_wanted(&restart_name(*what, *objects)));
    let watches = sized(vec![1_000, 10_000], vec![10]);
    let idle = |watches: usize| format!("memory: {watches} idle watches");
    let watches: Vec<usize> = watches.into_iter().filter(|watches| is_wanted(&idle(*watches))).collect();
    if restarts.is_empty() && watches.is_empty() {
        return Ok(());
    }
    report.settings(
        "idle watches: all opened, nothing written, an operation is the opening of one; restarts: an operation is one, and its latency from the \
         signal of kill -9 to the first answered read of an object that had been written; objects of 1 KiB as in puts, written in batches",
    );
    for watches in watches {
        let mut figures = Vec::new();
        for peer in peers {
            figures.push(idle_watches(report, idle(watches), *peer, watches).await?);
        }
        compare(report, &figures);
    }
    for (what, objects, rounds) in restarts {
        let mut figures = Vec::new();
        for peer in if what == What::Lease { peers } else { &peers[..1] } {
            figures.push(restart(report, *peer, what, objects, rounds).await?);
        }
        compare(report, &figures);
    }
    Ok(())
}

async fn idle_watches(report: &mut Report, case: String, peer: Peer, watches: usize) -> anyhow::Result<Figures> {
    let server = Server::start(peer).await?;
    // Let it do whatever it does after its start, so that the memory is that of an idle server.
    tokio::time::sleep(sized(Duration::from_secs(3), Duration::from_millis(100))).await;
    let (fresh, cpu, start) = (server.process.rss(), server.process.cpu(), Instant::now());
    let watching = Watchers::open(&server, watches, |_| None).await?;
    let (time, server_cpu) = (start.elapsed(), server.process.cpu().zip(cpu).map(|(after, before)| after - before));
    let row = Row {
        case,
        who: peer.name(),
        operations: watches as u64,
        time,
        latency: latencies(),
        server_cpu,
        memory: memory_of(&server.process),
    };
    let figures = report.row(&row)?;
    watching.all_run()?;
    if let (Some(before), Some(after)) = (fresh, figures.rss) {
        let each = after.saturating_sub(before) as f64 / watches as f64 / 1024.0;
        report.note(&format!("{}: {} MiB before, {each:.1} KiB for each watch", peer.name(), mib(fresh)));
    }
    Ok(figures)
}

fn restart_name(what: What, objects: u64) -> String {
    format!("memory: kill -9 with {objects} {}", what.name())
}

async fn restart(report: &mut Report, peer: Peer, what: What, objects: u64, rounds: usize) -> anyhow::Result<Figures> {
    let mut server = Server::start(peer).await?;
    let batches = objects / BATCH;
    let start = Instant::now();
    write_so_many(&server, &peer.batch(what), FILLING, batches).await?;
    let rate = objects as f64 / start.elapsed().as_secs_f64();
    let (rss, peak) = memory_of(&server.process);
    report.note(&format!(
        "{}: {objects} {} written at {rate:.0}/s: {} MiB of memory, {} at the most, {} MiB on disk",
        peer.name(),
        what.name(),
        mib(rss),
        mib(peak),
        mib(Some(server.disk_bytes()?))
    ));
    let mut latency = latencies();
    for round in 0..rounds as u64 {
        let start = Instant::now();
        server.kill_and_start_again()?;
        let written = server.read(what, round * (batches - 1) / rounds as u64).await?;
        latency.saturating_record(start.elapsed().as_micros() as u64);
        ensure!(written && server.read(what, batches - 1).await?, "what was written is lost");
    }
    report.row(&starts(restart_name(what, objects), &server, latency))
}

fn starts(case: String, server: &Server, latency: Histogram<u64>) -> Row {
    let operations = latency.len();
    let time = Duration::from_micros((latency.mean() * operations as f64) as u64);
    // The processor time of the last of them stands for each.
    let server_cpu = server.process.cpu().map(|cpu| cpu * operations as u32);
    Row { case, who: server.peer.name(), operations, time, latency, server_cpu, memory: memory_of(&server.process) }
}

//! Clients that write as fast as they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::peer::Write;
use super::report::{Row, latencies, memory_of};
use super::server::{Server, cpu_between};
use super::warm_up_time;
use super::wire::{Method, connect};

const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const DONE: u8 = 2;

/// How fast each client writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As soon as its last write was answered.
    Full,
    /// So many times a second.
    PerSecond(u32),
}

/// So many clients, each with one write at a time, for so long after a warm-up. An operation is an object, the latency that of a request.
pub async fn write_for(
    case: String,
    duration: Duration,
    server: &Server,
    write: &Write,
    clients: usize,
    pace: Pace,
) -> anyhow::Result<Row> {
    let phase = Arc::new(AtomicU8::new(WARMING_UP));
    let next = Arc::new(AtomicU64::new(0));
    let channels = connect(&server.url, clients).await?;
    let mut running = JoinSet::new();
    for client in 0..clients {
        let method = Method::new(&channels[client % channels.len()], write.method);
        running.spawn(write_in_phases(method, write.clone(), pace, phase.clone(), next.clone()));
    }
    tokio::time::sleep(warm_up_time()).await;
    let (start, cpu) = (Instant::now(), server.process.cpu());
    phase.store(MEASURING, Ordering::Relaxed);
    tokio::time::sleep(duration).await;
    phase.store(DONE, Ordering::Relaxed);
    let (time, server_cpu) = (start.elapsed(), cpu_between(cpu, server.process.cpu()));
    let mut latency = latencies();
    while let Some(client) = running.join_next().await {
        latency.add(client??).context("the same bounds")?;
    }
    let memory = memory_of(&server.process);
    Ok(Row { case, who: server.peer.name(), operations: latency.len() * write.objects, time, latency, server_cpu, memory })
}

async fn write_in_phases(
    mut method: Method,
    write: Write,
    pace: Pace,
    phase: Arc<AtomicU8>,
    next: Arc<AtomicU64>,
) -> anyhow::Result<Histogram<u64>> {
    let mut latency = latencies();
    let mut ticks = match pace {
        Pace::PerSecond(rate) => Some(tokio::time::interval(Duration::from_secs(1) / rate)),
        Pace::Full => None,
    };
    loop {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let begun_in = phase.load(Ordering::Relaxed);
        if begun_in == DONE {
            return Ok(latency);
        }
        let start = Instant::now();
        method.call(write.request.fill(next.fetch_add(1, Ordering::Relaxed), 0)).await.context("a write failed")?;
        if begun_in == MEASURING {
            latency.saturating_record(start.elapsed().as_micros() as u64);
        }
    }
}

/// So many requests by so many clients.
pub async fn write_so_many(server: &Server, write: &Write, clients: usize, requests: u64) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let channels = connect(&server.url, clients).await?;
    let mut running = JoinSet::new();
    for client in 0..clients {
        let mut method = Method::new(&channels[client % channels.len()], write.method);
        let (request, next) = (write.request.clone(), next.clone());
        running.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return anyhow::Ok(());
                }
                method.call(request.fill(number, 0)).await.context("a write failed")?;
            }
        });
    }
    while let Some(client) = running.join_next().await {
        client??;
    }
    Ok(())
}

//! Clients that write as fast as they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::pods::Template;
use super::report::latencies;
use super::server::{Process, cpu_between};
use super::wire::{Method, connect};
use super::{measured_time, warm_up_time};

/// Where writes go, and what is written.
pub struct Target {
    pub url: String,
    pub method: &'static str,
    pub request: Template,
}

/// What a load did.
pub struct Measured {
    pub operations: u64,
    pub time: Duration,
    pub latency: Histogram<u64>,
    pub server_cpu: Option<Duration>,
}

const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const DONE: u8 = 2;

/// So many clients, each with one write at a time, for the measured time.
pub async fn write_for_a_while(target: &Target, clients: usize, server: &Process) -> anyhow::Result<Measured> {
    let phase = Arc::new(AtomicU8::new(WARMING_UP));
    let next = Arc::new(AtomicU64::new(0));
    let channels = connect(&target.url, clients).await?;
    let mut running = JoinSet::new();
    for client in 0..clients {
        let mut method = Method::new(&channels[client % channels.len()], target.method);
        let (request, phase, next) = (target.request.clone(), phase.clone(), next.clone());
        running.spawn(async move {
            let mut latency = latencies();
            loop {
                let begun_in = phase.load(Ordering::Relaxed);
                if begun_in == DONE {
                    return anyhow::Ok(latency);
                }
                let start = Instant::now();
                method.call(request.fill(next.fetch_add(1, Ordering::Relaxed), 0)).await.context("a write failed")?;
                if begun_in == MEASURING {
                    latency.saturating_record(start.elapsed().as_micros() as u64);
                }
            }
        });
    }
    tokio::time::sleep(warm_up_time()).await;
    let (start, cpu) = (Instant::now(), server.cpu());
    phase.store(MEASURING, Ordering::Relaxed);
    tokio::time::sleep(measured_time()).await;
    phase.store(DONE, Ordering::Relaxed);
    let (time, server_cpu) = (start.elapsed(), cpu_between(cpu, server.cpu()));
    let mut latency = latencies();
    while let Some(client) = running.join_next().await {
        latency.add(client??).context("the same bounds")?;
    }
    Ok(Measured { operations: latency.len(), time, latency, server_cpu })
}

/// So many writes by so many clients.
pub async fn write_so_many(target: &Target, clients: usize, writes: u64) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let channels = connect(&target.url, clients).await?;
    let mut running = JoinSet::new();
    for client in 0..clients {
        let mut method = Method::new(&channels[client % channels.len()], target.method);
        let (request, next) = (target.request.clone(), next.clone());
        running.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= writes {
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

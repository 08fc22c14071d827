//! An apiserver that is killed with 100,000 objects on its disk: how long until it answers again, and the memory it takes. And a fresh one.

mod common;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bluebird::api::v1::Pod;
use bluebird::client::Client;
use common::report::{Load, Report, Row, latencies};
use common::server::Apiserver;
use common::writers::{Target, write_so_many};
use common::{is_wanted, pods, run, sized};

const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

fn main() {
    run("restart", bench);
}

async fn bench(mut report: Report) -> anyhow::Result<()> {
    let (objects, rounds) = (sized(100_000, 1_000), sized(5, 1));
    report.settings(&format!(
        "{rounds} starts per case; an operation is one start, from the process's creation to the first answered request"
    ));
    if is_wanted("fresh") {
        fresh(&mut report, rounds).await?;
    }
    if is_wanted("kill") {
        killed(&mut report, rounds, objects).await?;
    }
    Ok(())
}

async fn fresh(report: &mut Report, rounds: u64) -> anyhow::Result<()> {
    let (mut latency, mut last) = (latencies(), None);
    for _ in 0..rounds {
        let start = Instant::now();
        let apiserver = Apiserver::start()?;
        let client = answering(&apiserver).await?;
        client.list::<Pod>("").await?;
        latency.saturating_record(start.elapsed().as_micros() as u64);
        last = Some(apiserver);
    }
    let apiserver = last.context("no round")?;
    // Let it do whatever it does after its start, so that the memory is that of an idle server.
    tokio::time::sleep(sized(Duration::from_secs(5), Duration::from_millis(100))).await;
    add_row(report, "fresh and idle".to_owned(), rounds, latency, &apiserver)
}

async fn killed(report: &mut Report, rounds: u64, objects: u64) -> anyhow::Result<()> {
    let mut apiserver = Apiserver::start()?;
    let request = pods::create_request(true);
    let target = Target { url: apiserver.url.clone(), method: "/bluebird.v1.ControlPlaneService/Create", request };
    write_so_many(&target, 64, objects).await?;
    let memory = apiserver.process.rss().map_or("n/a".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / 1048576.0));
    report.note(&format!("{objects} pods created: {memory} of memory, {:.1} MiB on disk", apiserver.disk_bytes()? as f64 / 1048576.0));
    let mut latency = latencies();
    for _ in 0..rounds {
        apiserver.process.kill()?;
        let start = Instant::now();
        apiserver.start_again()?;
        let client = answering(&apiserver).await?;
        latency.saturating_record(start.elapsed().as_micros() as u64);
        let pods = client.list::<Pod>("").await?.len() as u64;
        anyhow::ensure!(pods == objects, "{pods} of {objects} pods are there after the restart");
    }
    add_row(report, format!("kill -9 with {objects} pods"), rounds, latency, &apiserver)
}

/// A client, once the server has answered it a first time.
async fn answering(apiserver: &Apiserver) -> anyhow::Result<Client> {
    let client = Client::new(&apiserver.url)?;
    let start = Instant::now();
    while let Err(error) = client.get::<bluebird::api::v1::Namespace>("", "default").await {
        anyhow::ensure!(error.is_retryable() && start.elapsed() < ANSWER_DEADLINE, "the apiserver does not answer: {error}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(client)
}

fn add_row(
    report: &mut Report,
    case: String,
    starts: u64,
    latency: hdrhistogram::Histogram<u64>,
    apiserver: &Apiserver,
) -> anyhow::Result<()> {
    let time = Duration::from_micros((latency.mean() * starts as f64) as u64);
    let (server_cpu, server_rss) = (apiserver.process.cpu().map(|cpu| cpu * starts as u32), apiserver.process.rss());
    report.row(&Row { case, load: Load::Clients(1), operations: starts, time, latency, server_cpu, server_rss })?;
    Ok(())
}

//! What a kubelet costs, with real executables and real processes: from the create of a pod to the moment at which a watch sees it running, beside a
//! start by supervisord of the same program; and a thousand pods at once; and the stop of what doesn't want to end.
//!
//! `cargo bench --bench kubelet -- idle thousand stop`; supervisord is taken from PATH, or from where SUPERVISORD says.

#[path = "../common/mod.rs"]
mod common;
mod pods;
mod stop;
mod supervisord;
mod thousand;

use std::time::{Duration, Instant};

use bluebird::client::Client;
use common::peer::Peer;
use common::report::{Report, Row, latencies, memory_of, mib};
use common::server::{Kubelet, Process, Server, cpu_between};
use common::{is_wanted, run, sized};
use hdrhistogram::Histogram;
use pods::Pods;
use supervisord::Supervisord;

fn main() {
    run("kubelet", bench);
}

/// What every pod and every program of supervisord runs.
fn command() -> [&'static str; 2] {
    [env!("CARGO_BIN_EXE_testapp"), "forever"]
}

async fn bench(mut report: Report) -> anyhow::Result<()> {
    let (one_by_one, burst) = (sized(300, 5), sized(100, 5));
    report.settings(&format!(
        "one kubelet; `testapp forever`; {one_by_one} one after the other, each ended before the next; then {burst} at once"
    ));
    if is_wanted("idle") {
        let pods = one_after_the_other(&mut report, one_by_one).await?;
        match Supervisord::find() {
            None => report.note("supervisord: none in PATH, and SUPERVISORD doesn't say where it is"),
            Some(program) => supervisord::bench(&mut report, &program, one_by_one, &pods)?,
        }
    }
    if is_wanted("burst") {
        burst_of(&mut report, burst).await?;
    }
    if is_wanted("stop") {
        stop::bench(&mut report, sized(50, 2), Supervisord::find()).await?;
    }
    if is_wanted("thousand") {
        thousand::bench(&mut report, sized(1_000, 10)).await?;
    }
    Ok(())
}

async fn one_after_the_other(report: &mut Report, rounds: usize) -> anyhow::Result<common::report::Figures> {
    let (apiserver, kubelet, mut pods) = begin().await?;
    let (mut time, mut latency) = (Duration::ZERO, latencies());
    let cpu = (apiserver.process.cpu(), kubelet.process.cpu());
    for round in 0..rounds {
        let start = Instant::now();
        pods.create(format!("one-{round}")).await?;
        latency.saturating_record(pods.next_running().await?.as_micros() as u64);
        time += start.elapsed();
        pods.delete_all().await?;
    }
    row(report, "create to Running on an idle node", rounds, time, latency, &apiserver, &kubelet.process, cpu)
}

async fn burst_of(report: &mut Report, at_once: usize) -> anyhow::Result<()> {
    let (apiserver, kubelet, mut pods) = begin().await?;
    let (start, mut latency) = (Instant::now(), latencies());
    let cpu = (apiserver.process.cpu(), kubelet.process.cpu());
    for number in 0..at_once {
        pods.create(format!("burst-{number}")).await?;
    }
    for _ in 0..at_once {
        latency.saturating_record(pods.next_running().await?.as_micros() as u64);
    }
    let time = start.elapsed();
    pods.delete_all().await?;
    row(report, "create to Running in a burst", at_once, time, latency, &apiserver, &kubelet.process, cpu).map(drop)
}

/// An apiserver, a kubelet that is ready, and what a watch tells of its pods.
async fn begin() -> anyhow::Result<(Server, Kubelet, Pods)> {
    let apiserver = Server::start(Peer::Bluebird).await?;
    let kubelet = Kubelet::start(&apiserver.url, "bench")?;
    let pods = Pods::follow(Client::new(&apiserver.url)?).await?;
    Ok((apiserver, kubelet, pods))
}

#[allow(clippy::too_many_arguments, reason = "the columns of a row")]
fn row(
    report: &mut Report,
    case: &str,
    operations: usize,
    time: Duration,
    latency: Histogram<u64>,
    apiserver: &Server,
    kubelet: &Process,
    cpu: (Option<Duration>, Option<Duration>),
) -> anyhow::Result<common::report::Figures> {
    let operations = operations as u64;
    let server_cpu = cpu_between(cpu.0, apiserver.process.cpu());
    let memory = memory_of(&apiserver.process);
    let row = Row { case: case.to_owned(), who: apiserver.peer.name(), operations, time, latency, server_cpu, memory };
    let figures = report.row(&row)?;
    if let Some(used) = cpu_between(cpu.1, kubelet.cpu()) {
        let each = used.as_secs_f64() * 1000.0 / operations as f64;
        report.note(&format!("kubelet: {each:.1} ms of CPU for each pod's start and end, {} MiB", mib(kubelet.rss())));
    }
    Ok(figures)
}

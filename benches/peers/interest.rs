//! What watchers cost a writer: the same puts with nobody watching, and with many who watch everything.

use std::time::Duration;

use crate::common::objects::What;
use crate::common::peer::Peer;
use crate::common::report::{Figures, Report};
use crate::common::server::Server;
use crate::common::writers::{Pace, write_for};
use crate::common::{is_wanted, measured_time, sized};
use crate::compare;
use crate::watchers::Watchers;

pub(crate) async fn bench(report: &mut Report, peers: &[Peer]) -> anyhow::Result<()> {
    let numbers = sized(vec![0, 1000, 10_000], vec![0, 10]);
    // So slow that all deliveries together leave some of the processor free.
    let slow = (1, Pace::PerSecond(20), measured_time() * 2);
    let fast = (16, Pace::Full, measured_time());
    let mut begun = false;
    for (clients, pace, time) in [slow, fast] {
        let mut alone: Vec<Figures> = Vec::new();
        for watchers in &numbers {
            let case = name(*watchers, pace);
            if !is_wanted(&case) {
                continue;
            }
            if !std::mem::replace(&mut begun, true) {
                settings(report);
            }
            let mut figures = Vec::new();
            for peer in peers {
                figures.push(measure(report, case.clone(), *peer, *watchers, clients, pace, time).await?);
            }
            compare(report, &figures);
            if *watchers == 0 {
                alone = figures;
            } else {
                for (peer, (with, without)) in peers.iter().zip(figures.iter().zip(&alone)) {
                    report.note(&slowed_down(peer.name(), with, without));
                }
            }
        }
    }
    Ok(())
}

fn settings(report: &Report) {
    report.settings(
        "puts of pods while so many watchers are sent every one of them, over 16 connections; one client at 20 puts/s, then 16 clients as fast as \
         they are answered, who wait for no watcher; watchers, writers and server share the machine's cores",
    );
}

fn name(watchers: usize, pace: Pace) -> String {
    match pace {
        Pace::Full => format!("interest: {watchers} watchers, 16 clients"),
        Pace::PerSecond(rate) => format!("interest: {watchers} watchers, {rate} puts/s"),
    }
}

async fn measure(
    report: &mut Report,
    case: String,
    peer: Peer,
    watchers: usize,
    clients: usize,
    pace: Pace,
    time: Duration,
) -> anyhow::Result<Figures> {
    let server = Server::start(peer).await?;
    let watching = Watchers::open(&server, watchers, |_| None).await?;
    let row = write_for(case, time, &server, &peer.put(What::Pod), clients, pace).await?;
    watching.all_run()?;
    report.row(&row)
}

fn slowed_down(name: &str, with: &Figures, without: &Figures) -> String {
    format!(
        "{name}: {:.2} × the puts without watchers, p50 {:.2} ×, p99 {:.2} ×",
        with.rate / without.rate,
        with.p50_us as f64 / without.p50_us as f64,
        with.p99_us as f64 / without.p99_us as f64
    )
}

//! The stop of what doesn't want to end: programs that ignore requests to, each with a process that forked twice, left its session and ignores them, too.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::common::report::{Report, Row, latencies, memory_of};
use super::common::server::cpu_between;
use super::common::sized;
use super::supervisord::{Program, Supervisord};

const GRACE: Duration = Duration::from_secs(1);
const COMMAND: [&str; 4] = [env!("CARGO_BIN_EXE_testapp"), "ignore-stop", "detach", "forever"];
/// How many processes each of them is.
const PROCESSES: usize = 2;
/// How long they may take to be there, or gone.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);

/// From the delete until the last process is gone, less the grace period: of so many pods at once, and of programs of supervisord one after the other.
pub(crate) async fn bench(report: &mut Report, pods_at_once: usize, supervisord: Option<PathBuf>) -> anyhow::Result<()> {
    pods(report, pods_at_once).await?;
    match supervisord {
        None => report.note("supervisord: none in PATH, and SUPERVISORD doesn't say where it is"),
        Some(program) => programs(report, &program, sized(20, 1)).await?,
    }
    Ok(())
}

async fn pods(report: &mut Report, count: usize) -> anyhow::Result<()> {
    let (apiserver, kubelet, mut pods) = super::begin().await?;
    let mut uids = Vec::new();
    for number in 0..count {
        uids.push(pods.create_as(format!("deaf-{number}"), &COMMAND, GRACE).await?);
    }
    let mut trees = Vec::new();
    for uid in &uids {
        trees.push(tree("BLUEBIRD_POD_UID", uid).await?);
    }
    let cpu = (apiserver.process.cpu(), kubelet.process.cpu());
    let start = Instant::now();
    let mut asked = Vec::new();
    for number in 0..count {
        asked.push(Instant::now());
        pods.delete(&format!("deaf-{number}")).await?;
    }
    let mut latency = latencies();
    let mut left: Vec<(Instant, Vec<u32>)> = asked.into_iter().zip(trees).collect();
    while !left.is_empty() {
        ensure!(start.elapsed() < DEADLINE, "{} pods are not gone", left.len());
        left.retain_mut(|(asked, pids)| {
            pids.retain(|pid| is_alive(*pid));
            if pids.is_empty() {
                latency.saturating_record(asked.elapsed().saturating_sub(GRACE).as_micros() as u64);
            }
            !pids.is_empty()
        });
        tokio::time::sleep(LOOK).await;
    }
    let time = start.elapsed();
    super::row(report, "delete to the last process's end, less grace", count, time, latency, &apiserver, &kubelet.process, cpu)?;
    pods.until_gone().await?;
    report.note(&format!(
        "all {count} pods are gone from the API {:.2} s after the first delete, with a grace period of {GRACE:?}",
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}

async fn programs(report: &mut Report, program: &Path, rounds: usize) -> anyhow::Result<()> {
    let (name, value) = ("BLUEBIRD_BENCH", std::process::id().to_string());
    let settings =
        format!("stopsignal=TERM\nstopwaitsecs={}\nstopasgroup=true\nkillasgroup=true\nenvironment={name}=\"{value}\"", GRACE.as_secs());
    let supervisord = Supervisord::start(program, &Program { command: &COMMAND, settings: &settings })?;
    let (cpu, begun, mut latency, mut survivors) = (supervisord.process.cpu(), Instant::now(), latencies(), 0);
    for _ in 0..rounds {
        supervisord.call("supervisor.startProcess", true)?;
        let mut pids = tree(name, &value).await?;
        let asked = Instant::now();
        supervisord.call("supervisor.stopProcess", true)?;
        latency.saturating_record(asked.elapsed().saturating_sub(GRACE).as_micros() as u64);
        pids.retain(|pid| is_alive(*pid));
        survivors += pids.len();
        for pid in pids {
            ensure!(Command::new("kill").args(["-KILL", &pid.to_string()]).status()?.success(), "process {pid} can't be killed");
            while is_alive(pid) {
                tokio::time::sleep(LOOK).await;
            }
        }
    }
    let server_cpu = cpu_between(cpu, supervisord.process.cpu());
    let (case, memory) = ("stopProcess until it says so, less stopwaitsecs".to_owned(), memory_of(&supervisord.process));
    report.row(&Row { case, who: "superv.", operations: rounds as u64, time: begun.elapsed(), latency, server_cpu, memory })?;
    report.note(&format!("supervisord: {survivors} of {} processes outlived their stop, and were killed by the bench", rounds * PROCESSES));
    Ok(())
}

/// The processes with this in their environment, once they are all there.
async fn tree(name: &str, value: &str) -> anyhow::Result<Vec<u32>> {
    let begun = Instant::now();
    loop {
        ensure!(begun.elapsed() < DEADLINE, "there are never {PROCESSES} processes with {name}={value}");
        if let Some(pids) = marked(name).remove(value)
            && pids.len() == PROCESSES
        {
            return Ok(pids);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The living processes that have a variable, by its values.
fn marked(name: &str) -> HashMap<String, Vec<u32>> {
    let mut found: HashMap<String, Vec<u32>> = HashMap::new();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| is_alive(*pid)) {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let variables = environment.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='));
        // The one that only starts the last one is about to end.
        if variables.clone().any(|(variable, _)| variable == "TESTAPP_BETWEEN") {
            continue;
        }
        for (_, value) in variables.filter(|(variable, _)| *variable == name) {
            found.entry(value.to_owned()).or_default().push(pid);
        }
    }
    found
}

/// A zombie counts as dead.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    !matches!(state, Some("Z" | "X") | None)
}

//! A thousand pods at once: how long until all run, and what they cost then.

use std::time::{Duration, Instant};

use super::common::report::{Report, latencies, mib};
use super::common::server::{Process, cpu_between};
use super::common::sized;

/// Between the last start and the beginning of rest.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) async fn bench(report: &mut Report, count: usize) -> anyhow::Result<()> {
    let (apiserver, kubelet, mut pods) = super::begin().await?;
    let (start, mut latency) = (Instant::now(), latencies());
    let cpu = (apiserver.process.cpu(), kubelet.process.cpu());
    pods.apply((0..count).map(|number| format!("many-{number}")).collect()).await?;
    let applied = start.elapsed();
    for _ in 0..count {
        latency.saturating_record(pods.next_running().await?.as_micros() as u64);
    }
    let time = start.elapsed();
    super::row(report, "Apply to Running, of many", count, time, latency, &apiserver, &kubelet.process, cpu)?;
    report.note(&format!("all {count} run {:.2} s after the Apply began, which took {:.2} s", time.as_secs_f64(), applied.as_secs_f64()));

    tokio::time::sleep(sized(SETTLE, Duration::ZERO)).await;
    let shims = shims();
    let mut private: Vec<u64> = shims.iter().filter_map(|pid| private_bytes(*pid)).collect();
    private.sort_unstable();
    let [median, most] = [private.get(private.len() / 2), private.last()].map(|bytes| bytes.copied().unwrap_or(0) / 1024);
    report.note(&format!(
        "kubelet {} MiB; {} shims, each {median} KiB private (median), at most {most}",
        mib(kubelet.process.rss()),
        shims.len()
    ));

    let span = sized(Duration::from_secs(30), Duration::from_millis(200));
    let before = (kubelet.process.cpu(), processor_time(&shims), apiserver.process.cpu());
    tokio::time::sleep(span).await;
    let used =
        |used: Option<Duration>| used.map_or("n/a".to_owned(), |used| format!("{:.2} %", used.as_secs_f64() * 100.0 / span.as_secs_f64()));
    let of_kubelet = used(cpu_between(before.0, kubelet.process.cpu()));
    let of_shims = used(Some(processor_time(&shims).saturating_sub(before.1)));
    let of_apiserver = used(cpu_between(before.2, apiserver.process.cpu()));
    report.note(&format!("of one core in {span:?} at rest: kubelet {of_kubelet}, all shims {of_shims}, apiserver {of_apiserver}"));

    // From the first figures on: what it takes to have some is another matter.
    let begun = Instant::now();
    pods.top().await?;
    let first = begun.elapsed();
    let before = (kubelet.process.cpu(), apiserver.process.cpu());
    let looked = Instant::now();
    while looked.elapsed() < span {
        pods.top().await?;
        tokio::time::sleep(span / 15).await;
    }
    let (of_kubelet, of_apiserver) =
        (used(cpu_between(before.0, kubelet.process.cpu())), used(cpu_between(before.1, apiserver.process.cpu())));
    report.note(&format!(
        "while somebody looks at what all use, which takes {:.2} s at first: kubelet {of_kubelet}, apiserver {of_apiserver}",
        first.as_secs_f64()
    ));
    pods.delete_all().await
}

/// The shims of this bench's kubelets: they are told apart from others by the executable.
fn shims() -> Vec<u32> {
    let is_ours = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0);
        words.next() == Some(env!("CARGO_BIN_EXE_kubelet").as_bytes()) && words.next() == Some(b"shim")
    };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
}

/// What a process has for itself alone, in bytes.
fn private_bytes(pid: u32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let private = rollup.lines().filter(|line| line.starts_with("Private_Clean:") || line.starts_with("Private_Dirty:"));
    Some(private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>() * 1024)
}

fn processor_time(pids: &[u32]) -> Duration {
    pids.iter().filter_map(|pid| Process::cpu_of(*pid)).sum()
}

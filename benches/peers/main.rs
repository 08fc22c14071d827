//! The apiserver and etcd, driven by the same load in the same run: `cargo bench --bench peers`, or `cargo bench --bench peers -- TEXT…` for the
//! cases whose name contains one of the texts, as in `-- puts` or `-- "watch: 1000"`.

#[path = "../common/mod.rs"]
mod common;
mod interest;
mod memory;
mod puts;
mod slow;
mod watch;
mod watchers;

use common::peer::Peer;
use common::report::{Figures, Report};
use common::{run, server};

fn main() {
    run("peers", bench);
}

async fn bench(mut report: Report) -> anyhow::Result<()> {
    let peers = match server::etcd_version() {
        Some(version) => {
            report.note(&format!("beside it: {version}, with its defaults"));
            vec![Peer::Bluebird, Peer::Etcd]
        }
        None => {
            report.note("etcd is not compared: there is no `etcd` in PATH (Debian: apt-get install etcd-server)");
            vec![Peer::Bluebird]
        }
    };
    puts::bench(&mut report, &peers).await?;
    interest::bench(&mut report, &peers).await?;
    watch::bench(&mut report, &peers).await?;
    slow::bench(&mut report, &peers).await?;
    memory::bench(&mut report, &peers).await
}

/// The ratios, where both were measured.
fn compare(report: &Report, figures: &[Figures]) {
    if let [ours, theirs] = figures {
        report.compare(ours, theirs);
    }
}

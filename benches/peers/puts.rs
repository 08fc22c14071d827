//! Durable writes: how many a second, how long each takes, what each costs the server.

use crate::common::objects::What;
use crate::common::peer::{BATCH, Peer};
use crate::common::report::{Report, Row};
use crate::common::server::Server;
use crate::common::writers::{Pace, write_for};
use crate::common::{is_wanted, measured_time, quick, sized};
use crate::compare;

/// One line of the table.
#[derive(Clone, Copy)]
struct Case {
    clients: usize,
    what: What,
    in_batches: bool,
}

pub(crate) async fn bench(report: &mut Report, peers: &[Peer]) -> anyhow::Result<()> {
    let cases: Vec<Case> = cases().into_iter().filter(|case| is_wanted(&case.name())).collect();
    if cases.is_empty() {
        return Ok(());
    }
    report.settings(&format!(
        "durable writes of new objects of 1 KiB (ours: a lease with a padded annotation, which nobody in the process follows; etcd: a value of \
         1,024 bytes), answered when they are on disk; each client has one request at a time; up to 16 connections; {} rounds of {:?} after a \
         warm-up, alternating, a fresh server each; an operation is one durable object, the latency that of a request; \"pods\" are bound to a \
         node that does not exist, so the controllers and the scheduler in our process only keep a copy; of \"unbound pods\" the scheduler \
         writes why they fit nowhere",
        rounds(),
        measured_time()
    ));
    for case in cases {
        let peers = if case.what == What::Lease { peers } else { &peers[..1] };
        measure(report, case, peers).await?;
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let put = |clients, what| Case { clients, what, in_batches: false };
    let apply = |clients| Case { clients, what: What::Lease, in_batches: true };
    if quick() {
        return vec![put(1, What::Lease), put(16, What::Lease), put(16, What::Pod), apply(1)];
    }
    let mut cases: Vec<Case> = [1, 16, 64, 256].map(|clients| put(clients, What::Lease)).into();
    cases.extend([put(1, What::Pod), put(64, What::Pod), put(64, What::UnboundPod), apply(1), apply(16)]);
    cases
}

impl Case {
    fn name(self) -> String {
        let Case { clients, what, .. } = self;
        match self.in_batches {
            true => format!("apply: {BATCH} {} at once, {clients} clients", what.name()),
            false => format!("puts: {}, {clients} clients", what.name()),
        }
    }
}

fn rounds() -> usize {
    sized(2, 1)
}

async fn measure(report: &mut Report, case: Case, peers: &[Peer]) -> anyhow::Result<()> {
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..rounds() {
        for (index, peer) in peers.iter().enumerate() {
            let write = if case.in_batches { peer.batch(case.what) } else { peer.put(case.what) };
            let server = Server::start(*peer).await?;
            let row = write_for(case.name(), measured_time(), &server, &write, case.clients, Pace::Full).await?;
            match round {
                0 => rows.push(row),
                _ => rows[index].add(&row)?,
            }
        }
    }
    let figures = rows.iter().map(|row| report.row(row)).collect::<anyhow::Result<Vec<_>>>()?;
    compare(report, &figures);
    Ok(())
}

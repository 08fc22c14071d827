//! Durable creates: how many pods a second, how long each takes, what each costs the server. Beside etcd's puts, where etcd is installed.

mod common;

use common::report::{Load, Report, Row};
use common::server::{Apiserver, Etcd, Process};
use common::writers::{Target, write_for_a_while};
use common::{etcd, is_wanted, measured_time, pods, quick, run};

const CREATE: &str = "/bluebird.v1.ControlPlaneService/Create";

fn main() {
    run("create", bench);
}

async fn bench(mut report: Report) -> anyhow::Result<()> {
    let size = pods::create_request(true).len();
    report.settings(&format!(
        "pods of {size} bytes in the request, etcd values of 1,024; each client has one write at a time; up to 16 connections; a fresh server per \
         case; measured {:?} after a warm-up; a write is answered when it is on disk; the pods are bound to a node that does not exist, so that \
         nobody acts on them, but for the unbound ones, each of which the scheduler looks at and writes why it fits nowhere",
        measured_time()
    ));
    for clients in if quick() { vec![1, 16] } else { vec![1, 16, 64, 256] } {
        let case = format!("create, {clients} clients");
        if !is_wanted(&case) {
            continue;
        }
        let apiserver = Apiserver::start()?;
        let target = Target { url: apiserver.url.clone(), method: CREATE, request: pods::create_request(true) };
        let ours = measure(&mut report, case, clients, &target, &apiserver.process).await?;
        drop(apiserver);

        let Some(etcd) = Etcd::start()? else {
            report.note("etcd is not compared: there is no `etcd` in PATH (Debian: apt-get install etcd-server)");
            continue;
        };
        let target = Target { url: etcd.url.clone(), method: etcd::PUT, request: etcd::put_request() };
        let theirs = measure(&mut report, format!("etcd put, {clients} clients"), clients, &target, &etcd.process).await?;
        report.note(&format!("{:.2} × etcd", ours / theirs));
    }
    let unbound = "create unbound, 64 clients";
    if is_wanted(unbound) {
        let apiserver = Apiserver::start()?;
        let target = Target { url: apiserver.url.clone(), method: CREATE, request: pods::create_request(false) };
        measure(&mut report, unbound.to_owned(), 64, &target, &apiserver.process).await?;
    }
    Ok(())
}

async fn measure(report: &mut Report, case: String, clients: usize, target: &Target, server: &Process) -> anyhow::Result<f64> {
    let measured = write_for_a_while(target, clients, server).await?;
    report.row(&Row {
        case,
        load: Load::Clients(clients),
        operations: measured.operations,
        time: measured.time,
        latency: measured.latency,
        server_cpu: measured.server_cpu,
        server_rss: server.rss(),
    })
}

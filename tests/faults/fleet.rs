//! All servers of a run.

use std::path::Path;

use bluebird::client::Client;
use bluebird::testing::Etcd;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fault::{Fault, a_while};
use crate::program::free_range;
use crate::servers::Server;

/// One apiserver with its folder, or several on one etcd.
pub(crate) struct Fleet {
    servers: Vec<Server>,
    etcd: Option<Etcd>,
    /// Before this revision the etcd may forget everything.
    forgettable: u64,
    /// How often a server ended by itself, because it could not reach its etcd when it started.
    revived: usize,
}

impl Fleet {
    /// Starts one apiserver, or three on this etcd.
    pub(crate) async fn start(folder: &Path, etcd: Option<Etcd>) -> Fleet {
        let (mut servers, range) = (Vec::new(), free_range());
        for number in 0..if etcd.is_some() { 3 } else { 1 } {
            let address = etcd.as_ref().map(|etcd| etcd.addresses()[0]);
            servers.push(Server::start(folder, &format!("apiserver-{number}"), address, &range).await);
        }
        Fleet { servers, etcd, forgettable: 0, revived: 0 }
    }

    /// How many servers there are.
    pub(crate) fn len(&self) -> usize {
        self.servers.len()
    }

    /// How often a server had to be started again that no fault had ended.
    pub(crate) fn revived(&self) -> usize {
        self.revived
    }

    /// What clients are given to connect to: each server alone, and, if there are several, all of them.
    pub(crate) fn urls(&self) -> Vec<String> {
        let mut urls: Vec<String> = self.servers.iter().map(Server::url).collect();
        if urls.len() > 1 {
            urls.push(urls.join(","));
        }
        urls
    }

    /// A client of one server.
    pub(crate) fn client(&self, server: usize) -> Client {
        Client::new(&self.servers[server].url()).expect("a URL")
    }

    /// A new round begins at this revision.
    pub(crate) fn begins_at(&mut self, revision: u64) {
        self.forgettable = revision;
    }

    /// Lets something happen, to one of the servers or to the etcd.
    pub(crate) async fn suffer(&mut self, rng: &mut fastrand::Rng) -> Fault {
        self.revive();
        let etcds = if self.etcd.is_some() { &Fault::OF_ETCD[..] } else { &[] };
        let faults = [&Fault::OF_SERVERS, etcds].concat();
        let (fault, server) = (faults[rng.usize(..faults.len())], rng.usize(..self.servers.len()));
        match (fault, &mut self.etcd) {
            (Fault::KillEtcd, Some(etcd)) => {
                etcd.kill();
                etcd.start_again().await;
            }
            (Fault::PauseEtcd, Some(etcd)) => {
                let all =
                    |signal| etcd.pids().into_iter().for_each(|pid| kill(Pid::from_raw(pid), signal).expect("a process of this test"));
                all(Signal::SIGSTOP);
                a_while(rng, 500).await;
                all(Signal::SIGCONT);
            }
            (Fault::CompactEtcd, Some(etcd)) => {
                // That it is so already, or is so again, is said as an error.
                etcd.control(&["compaction", &self.forgettable.to_string()]);
            }
            _ => self.servers[server].suffer(fault, rng).await,
        }
        fault
    }

    /// Starts what has ended by itself. Only what needs an etcd to start may do that.
    pub(crate) fn revive(&mut self) {
        for end in self.servers.iter_mut().filter_map(Server::revive) {
            assert!(self.etcd.is_some(), "{end}");
            println!("{end}");
            self.revived += 1;
        }
    }

    /// Ends all in good order.
    pub(crate) async fn end(self) {
        for server in self.servers {
            server.end().await;
        }
    }
}

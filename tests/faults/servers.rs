//! An apiserver, a process of its own between two cables, and what can happen to it.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use bluebird::testing::{Cable, Link, free_port};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fault::{Fault, a_while};
use crate::program::Program;

/// How many lines of a program that has ended are shown.
const LAST_WORDS: usize = 8;

/// An apiserver, the cable that leads to it, and that to its store.
pub(crate) struct Server {
    folder: PathBuf,
    name: String,
    args: Vec<String>,
    program: Program,
    cable: Cable,
    /// Leads to the etcd, if that is the store.
    store: Option<Cable>,
}

impl Server {
    /// Starts one. Its data is in a folder of this name, or in the etcd at this address.
    pub(crate) async fn start(folder: &Path, name: &str, etcd: Option<SocketAddr>, range: &str) -> Server {
        let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let store = match etcd {
            Some(etcd) => Some(Cable::new(etcd).await.expect("a free port")),
            None => None,
        };
        let (flag, place) = match &store {
            Some(cable) => ("--store", cable.url().replace("http:", "etcd:")),
            None => ("--data-dir", folder.join(name).to_str().expect("text").to_owned()),
        };
        let args: Vec<String> = [flag, &place, "--listen", &listen.to_string(), "--service-cidr", range].map(str::to_owned).into();
        let program = run(folder, name, &args);
        let cable = Cable::new(listen).await.expect("a free port");
        Server { folder: folder.to_owned(), name: name.to_owned(), args, program, cable, store }
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        self.cable.url()
    }

    /// Does it to the server; when this returns it runs again, or is about to.
    pub(crate) async fn suffer(&mut self, fault: Fault, rng: &mut fastrand::Rng) {
        match fault {
            Fault::Kill => {
                self.program.kill();
                self.run_again();
            }
            Fault::KillTwice => {
                self.program.kill();
                self.run_again();
                a_while(rng, 60).await;
                self.program.kill();
                self.run_again();
            }
            Fault::Stop => {
                let status = self.program.interrupt().await;
                // One that has only just begun to start dies of the signal.
                let died = status.signal() == Some(Signal::SIGINT as i32);
                assert!(status.success() || died, "{} ended with {status}", self.name);
                self.run_again();
            }
            Fault::Pause => {
                self.signal(Signal::SIGSTOP);
                a_while(rng, 500).await;
                self.signal(Signal::SIGCONT);
            }
            Fault::PauseAndKill => {
                self.signal(Signal::SIGSTOP);
                a_while(rng, 200).await;
                self.program.kill();
                self.run_again();
            }
            Fault::Cut => self.cable.cut(),
            Fault::Stall => disturb(&self.cable, Link::Silent, rng).await,
            Fault::Unplug => disturb(&self.cable, Link::Unplugged, rng).await,
            Fault::StallStore => disturb(self.store(), Link::Silent, rng).await,
            Fault::UnplugStore => disturb(self.store(), Link::Unplugged, rng).await,
            Fault::KillEtcd | Fault::PauseEtcd | Fault::CompactEtcd => unreachable!("{fault:?} is nothing that happens to a server"),
        }
    }

    /// Starts it again if it has ended by itself; tells how it had.
    pub(crate) fn revive(&mut self) -> Option<String> {
        let status = self.program.status()?;
        let said = self.program.said();
        let last = said.lines().skip(said.lines().count().saturating_sub(LAST_WORDS)).collect::<Vec<_>>().join("\n");
        self.run_again();
        Some(format!("{} ended by itself with {status}; it said last:\n{last}", self.name))
    }

    /// Ends it in good order.
    pub(crate) async fn end(mut self) {
        let status = self.program.interrupt().await;
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    fn run_again(&mut self) {
        self.program = run(&self.folder, &self.name, &self.args);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.program.pid()), signal).expect("a process of this test");
    }

    fn store(&self) -> &Cable {
        self.store.as_ref().expect("a fault of an etcd happens only to one")
    }
}

async fn disturb(cable: &Cable, link: Link, rng: &mut fastrand::Rng) {
    cable.set_link(link);
    a_while(rng, 400).await;
    cable.set_link(Link::Good);
}

fn run(folder: &Path, name: &str, args: &[String]) -> Program {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Program::start(folder, name, env!("CARGO_BIN_EXE_apiserver"), &args)
}

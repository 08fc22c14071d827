//! The servers, each a process of its own at the other end of a cable, and what can happen to them.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bluebird::testing::{Cable, Link};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::{Program, free_port, free_range};

/// What happens to a server, or to its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// `kill -9`, and a new start.
    Kill,
    /// The same, and once more while it starts.
    KillTwice,
    /// An orderly end, and a new start.
    Stop,
    /// It stands still for a while.
    Pause,
    /// It stands still, and is killed before it goes on.
    PauseAndKill,
    /// Every connection is reset.
    Cut,
    /// For a while every byte is lost, without a word.
    Stall,
    /// For a while nobody can connect.
    Unplug,
}

impl Fault {
    pub(crate) const ALL: [Fault; 8] =
        [Fault::Kill, Fault::KillTwice, Fault::Stop, Fault::Pause, Fault::PauseAndKill, Fault::Cut, Fault::Stall, Fault::Unplug];
}

/// An apiserver and the cable that leads to it.
pub(crate) struct Server {
    folder: PathBuf,
    name: String,
    args: Vec<String>,
    program: Program,
    cable: Cable,
}

impl Server {
    /// Starts one with its data in a folder of this name.
    pub(crate) async fn start(folder: &Path, name: &str) -> Server {
        let listen = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
        let data = folder.join(name);
        let args = ["--data-dir", data.to_str().expect("text"), "--listen", &listen.to_string(), "--service-cidr", &free_range()];
        let args: Vec<String> = args.map(str::to_owned).into();
        let program = run(folder, name, &args);
        let cable = Cable::new(listen).await.expect("a free port");
        Server { folder: folder.to_owned(), name: name.to_owned(), args, program, cable }
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
            Fault::Stall => self.lose_bytes(Link::Silent, rng).await,
            Fault::Unplug => self.lose_bytes(Link::Unplugged, rng).await,
        }
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

    async fn lose_bytes(&self, link: Link, rng: &mut fastrand::Rng) {
        self.cable.set_link(link);
        a_while(rng, 400).await;
        self.cable.set_link(Link::Good);
    }
}

fn run(folder: &Path, name: &str, args: &[String]) -> Program {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Program::start(folder, name, env!("CARGO_BIN_EXE_apiserver"), &args)
}

/// How long a fault lasts.
async fn a_while(rng: &mut fastrand::Rng, max_ms: u64) {
    tokio::time::sleep(Duration::from_millis(rng.u64(1..max_ms))).await;
}

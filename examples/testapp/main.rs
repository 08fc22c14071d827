//! `testapp STEP [ARGUMENT…] [STEP [ARGUMENT…]]…`: what a pod's process can do, as steps that are done one after the other, on every operating
//! system. For conformance runs, tests and benches. After the last step it ends with exit code 0.
//!
//! ```text
//! says     print TEXT · eprint TEXT · args WORD… · env NAME · environment · cwd · user · about · stdin · lines COUNT PER-SECOND · long-line BYTES · bytes
//! ends     exit CODE · die · sleep MILLISECONDS · forever · runs FILE COUNT CODE · on-stop CODE · ignore-stop
//! starts   detach · tree DEPTH WIDTH · spawn COUNT
//! uses     eat-memory MIB MIB-PER-SECOND · eat-cpu MILLISECONDS THREADS
//! files    write FILE TEXT · read FILE · mode FILE · list FOLDER · wait-for FILE · await-text FILE TEXT · journal FILE
//! serves   serve PORT · tcp PORT · udp PORT · grpc PORT
//! asks     get URL · tcp-ask ADDRESS TEXT · udp-ask ADDRESS TEXT · accepted ADDRESS · refused ADDRESS
//! ```
#![allow(clippy::disallowed_methods, reason = "it is what runs in pods: it does take its time, and nobody else's clock")]

mod ask;
mod eat;
mod files;
mod processes;
mod say;
mod serve;
mod system;

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// What a step answers: why it could not be done.
type Result<T = ()> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let mut words = Words(std::env::args().skip(1).collect::<Vec<_>>().into_iter());
    while let Some(step) = words.0.next() {
        if let Err(why) = run(&step, &mut words) {
            eprintln!("testapp: {step}: {why}");
            return ExitCode::from(70);
        }
    }
    ExitCode::SUCCESS
}

fn run(step: &str, words: &mut Words) -> Result {
    match step {
        "print" => say::line(&words.text()?),
        "eprint" => say::error_line(&words.text()?),
        "args" => words.0.by_ref().try_for_each(|word| say::line(&format!("[{word}]"))),
        "env" => say::variable(&words.text()?),
        "environment" => say::environment(),
        "cwd" => say::folder(),
        "user" => say::line(&system::user()),
        "about" => say::line(&format!("os={} user={}", std::env::consts::OS, system::kind_of_user())),
        "stdin" => say::input(),
        "lines" => say::lines(words.number()?, words.number()?),
        "long-line" => say::long_line(words.number()?),
        "bytes" => say::bytes(),

        "exit" => files::end(words.number()?),
        "die" => std::process::abort(),
        "sleep" => sleep(words.number()?),
        "forever" => loop {
            std::thread::park();
        },
        "runs" => files::end_in_first_runs(&words.text()?, words.number()?, words.number()?),
        "on-stop" => system::end_when_asked(words.number()?),
        "ignore-stop" => system::ignore_requests_to_end(),

        "detach" => processes::detach(),
        "hold" => processes::hold(),
        "tree" => processes::tree(words.number()?, words.number()?),
        "spawn" => processes::spawn(words.number()?),

        "eat-memory" => eat::memory(words.number()?, words.number()?),
        "eat-cpu" => eat::cpu(Duration::from_millis(words.number()?), words.number()?),

        "write" => files::write(&words.text()?, &words.text()?),
        "read" => files::read(&words.text()?),
        "mode" => files::mode(&words.text()?),
        "list" => files::list(&words.text()?),
        "await-text" => files::await_text(&words.text()?, &words.text()?),
        "wait-for" => files::wait_for(&words.text()?),
        "journal" => files::journal(&words.text()?),

        "serve" => serve::http(words.number()?),
        "tcp" => serve::tcp(words.number()?),
        "udp" => serve::udp(words.number()?),
        "grpc" => serve::grpc(words.number()?),

        "get" => ask::get(&words.text()?),
        "tcp-ask" => ask::tcp(&words.text()?, &words.text()?),
        "udp-ask" => ask::udp(&words.text()?, &words.text()?),
        "accepted" => ask::accepted(&words.text()?),
        "refused" => ask::refused(&words.text()?),
        _ => Err("there is no such step; the first comment of examples/testapp/main.rs lists them".to_owned()),
    }
}

fn sleep(millis: u64) -> Result {
    std::thread::sleep(Duration::from_millis(millis));
    Ok(())
}

/// The rest of the command line.
struct Words(std::vec::IntoIter<String>);

impl Words {
    fn text(&mut self) -> Result<String> {
        self.0.next().ok_or_else(|| "an argument is missing".to_owned())
    }

    fn number<N: FromStr>(&mut self) -> Result<N> {
        let text = self.text()?;
        text.parse().map_err(|_| format!("{text:?} is no number that fits"))
    }
}

/// What an operation of the operating system answers, in words.
fn told<T>(answer: std::io::Result<T>, what: impl std::fmt::Display) -> Result<T> {
    answer.map_err(|error| format!("{what}: {error}"))
}

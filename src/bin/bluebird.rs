//! `bluebird`: the commands of a person, and with `up` a whole cluster in one process.

use std::io::{IsTerminal as _, stderr, stdin, stdout};
use std::process::ExitCode;

use bluebird::console::{self, Surroundings};
use bluebird::time::Clock;

fn main() -> ExitCode {
    bluebird::telemetry::init("warn");
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (mut out, mut err, mut input) = (stdout(), stderr(), stdin());
    let is_terminal = out.is_terminal();
    let surroundings = Surroundings {
        out: &mut out,
        err: &mut err,
        input: &mut input,
        is_terminal,
        clock: Clock::system(),
        asked_to_end: || Box::pin(tokio::signal::ctrl_c()),
    };
    let code = runtime.block_on(console::run(std::env::args_os(), surroundings));
    // A thread may still wait for standard input; nobody needs what it would read.
    runtime.shutdown_background();
    ExitCode::from(code)
}

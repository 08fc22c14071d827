//! `bluebird`: the commands of a person, and with `up` a whole cluster in one process. Run as `bluebird shim FOLDER` it guards one pod.

use std::io::{stderr, stdin, stdout};
use std::process::ExitCode;

use bluebird::console::{self, Surroundings};
use bluebird::time::Clock;
use bluebird::{kubelet, telemetry};

fn main() -> ExitCode {
    kubelet::play_role(std::env::args_os());
    telemetry::init("warn");
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (mut out, mut err, mut input) = (stdout(), stderr(), stdin());
    let surroundings = Surroundings {
        out: &mut out,
        err: &mut err,
        input: &mut input,
        terminal: || terminal_size::terminal_size().map(|(width, height)| (width.0.into(), height.0.into())),
        clock: Clock::system(),
        asked_to_end: || Box::pin(async { kubelet::asked_to_end().await.map(drop) }),
        keys: || Box::new(stdin()),
        raw_terminal: kubelet::raw_terminal,
        resizes: kubelet::terminal_resizes,
    };
    let code = runtime.block_on(console::run(std::env::args_os(), surroundings));
    // A thread may still wait for standard input; nobody needs what it would read.
    runtime.shutdown_background();
    ExitCode::from(code)
}

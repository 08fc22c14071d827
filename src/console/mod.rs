//! The commands of `bluebird` and what they print.
//!
//! [`run`] reads the command line, and each command is a file: it asks the apiserver through the client, and what it prints of an object is
//! a function of the object and the time. Exit codes: 0 done, 1 failed, 2 wrong usage.

mod age;
mod apply;
mod args;
mod backup;
mod conformance;
mod delete;
mod describe;
mod echo;
mod exec;
mod explain;
mod failure;
mod get;
mod input;
mod led_to;
mod logs;
mod page;
mod port_forward;
mod progress;
mod rows;
mod screen;
mod store;
mod table;
mod targets;
mod top;
mod up;
mod version;
mod watch;
mod words;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::pin::Pin;

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _};
use futures_util::Stream;
use prost_types::Timestamp;

use self::args::{Cli, Command, Target};
use self::failure::{Failure, Result};
use crate::api::DEFAULT_NAMESPACE;
use crate::arguments::without_empty_variables;
use crate::client::Client;
use crate::time::Clock;

/// What a command has around it.
pub struct Surroundings<'io> {
    /// For results.
    pub out: &'io mut (dyn Write + Send),
    /// For everything that people should know besides.
    pub err: &'io mut (dyn Write + Send),
    /// For `-f -`.
    pub input: &'io mut (dyn Read + Send),
    /// The columns and lines of the terminal that `out` is, so that a table may be drawn anew; `None` if it is none.
    pub terminal: fn() -> Option<(usize, usize)>,
    /// Tells the time.
    pub clock: Clock,
    /// Waits until the program is asked to end, by Ctrl-C for instance. Each call waits for the next time.
    pub asked_to_end: fn() -> Asked,
    /// Standard input once more, for a thread that passes on what is typed as it comes.
    pub keys: fn() -> Box<dyn Read + Send>,
    /// Lets the terminal that standard input is hand over keys as they are pressed, until what is returned is dropped; `None` if it is none.
    pub raw_terminal: fn() -> io::Result<Option<Box<dyn Send>>>,
    /// Tells whenever the size of the terminal may have changed.
    pub resizes: fn() -> io::Result<Resizes>,
}

/// What [`Surroundings::resizes`] tells.
pub type Resizes = Pin<Box<dyn Stream<Item = ()> + Send>>;

/// What [`Surroundings::asked_to_end`] waits with.
pub type Asked = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// What every command works with.
struct Console<'io> {
    io: Surroundings<'io>,
    target: Target,
}

impl Console<'_> {
    fn client(&self) -> Result<Client> {
        Client::new(&self.target.server).map_err(|error| Failure::Usage(failure::describe(&error)))
    }

    fn now(&self) -> Timestamp {
        self.io.clock.now()
    }

    /// The namespace of objects that name none.
    fn namespace(&self) -> &str {
        self.target.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }
}

/// Runs one command line, the program's name included, and returns the exit code.
pub async fn run(args: impl IntoIterator<Item = OsString>, io: Surroundings<'_>) -> u8 {
    let cli = match parse(args) {
        Ok(cli) => cli,
        Err(help) => return print_usage(&help, io),
    };
    let mut console = Console { io, target: cli.target };
    match console.run(cli.command).await.and_then(|()| Ok(console.io.out.flush()?)) {
        Ok(()) | Err(Failure::PipeClosed) => 0,
        Err(Failure::Reported) => 1,
        Err(Failure::Ended(code)) => code,
        Err(Failure::Failed(why)) => console.complain(&why, 1),
        Err(Failure::Usage(why)) => console.complain(&format!("{why}\nTry `bluebird --help`."), 2),
    }
}

/// `up` asks no server but the one that it starts.
fn parse(args: impl IntoIterator<Item = OsString>) -> clap::error::Result<Cli> {
    let mut command = without_empty_variables(Cli::command());
    let matches = command.try_get_matches_from_mut(args)?;
    if let Some(("up", up)) = matches.subcommand()
        && up.value_source("server") == Some(ValueSource::CommandLine)
    {
        let why =
            "`up` starts a cluster of its own and asks no other server: leave --server out, or say with --listen where the new one listens";
        return Err(command.error(clap::error::ErrorKind::ArgumentConflict, why));
    }
    Cli::from_arg_matches(&matches)
}

/// What clap has to say: help, the version, or what is wrong with the arguments.
fn print_usage(help: &clap::Error, io: Surroundings<'_>) -> u8 {
    let stream = if help.use_stderr() { io.err } else { io.out };
    // Whoever closed the pipe doesn't want to know.
    let _ = write!(stream, "{}", help.render());
    u8::try_from(help.exit_code()).unwrap_or(2)
}

impl Console<'_> {
    async fn run(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Up(args) => up::run(self, args).await,
            Command::Apply(args) => apply::run(self, &args).await,
            Command::Get(args) => get::run(self, &args).await,
            Command::Describe(args) => describe::run(self, &args).await,
            Command::Delete(args) => delete::run(self, &args).await,
            Command::Logs(args) => logs::run(self, &args).await,
            Command::Conformance(args) => conformance::run(self, &args).await,
            Command::Exec(args) => exec::run(self, args).await,
            Command::PortForward(args) => port_forward::run(self, &args).await,
            Command::Top(args) => top::run(self, &args).await,
            Command::Backup(args) => backup::run(self, &args).await,
            Command::Store(command) => store::run(self, &command),
            Command::Explain(args) => explain::run(self, &args),
            Command::Completion { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "bluebird", &mut script);
                Ok(self.io.out.write_all(&script)?)
            }
            Command::Version => version::run(self).await,
            Command::Echo(args) => echo::run(self, args).await,
        }
    }

    fn complain(&mut self, why: &str, exit_code: u8) -> u8 {
        // There is nobody left to tell if this fails.
        let _ = writeln!(self.io.err, "error: {why}");
        exit_code
    }
}

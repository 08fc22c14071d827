//! What all command lines have in common.

use std::ffi::OsString;

use clap::builder::Resettable;
use clap::{Arg, Command, Parser};

/// Reads the command line of this process. Ends it with help or a complaint if that is what it asks for.
pub fn parse<T: Parser>() -> T {
    parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// Reads a command line, the program's name included.
///
/// # Errors
/// Help, the version, or what is wrong.
pub fn parse_from<T: Parser>(args: impl IntoIterator<Item = OsString>) -> clap::error::Result<T> {
    T::from_arg_matches(&without_empty_variables(T::command()).try_get_matches_from(args)?)
}

/// An empty variable is how a shell unsets one for a single command, and how a unit file leaves one open: it counts as none.
pub fn without_empty_variables(command: Command) -> Command {
    command.mut_args(without_empty_variable).mut_subcommands(without_empty_variables)
}

fn without_empty_variable(arg: Arg) -> Arg {
    let is_empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    if is_empty { arg.env(Resettable::Reset) } else { arg }
}

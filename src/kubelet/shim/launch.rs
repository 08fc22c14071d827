//! Starts one run of a container, or says why it can't be.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::files::{Cause, Run};
use super::outputs::Pens;
use crate::kubelet::os::{Host, Os};

/// There is no such program.
const NOT_FOUND: i32 = 127;
/// There is, but it can't be executed (here).
const NOT_EXECUTABLE: i32 = 126;

/// Starts a run, which writes to these; gives the pid of its main process.
pub(super) fn launch(run: &Run, pens: io::Result<Pens>) -> Result<i32, Cause> {
    let mut command = command(run)?;
    let Pens { stdout, stderr } =
        pens.map_err(|error| failed(NOT_EXECUTABLE, format!("the log {} can't be written: {error}", run.log.display())))?;
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    Host::spawn(&mut command, run).map_err(|error| explain(run, &error))
}

/// Starts a command beside the main process of a run; gives its pid. What it writes is not kept.
pub(super) fn hook(run: &Run, words: &[String]) -> Result<i32, Cause> {
    let run = run.clone().with_command(words);
    let mut command = command(&run)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Host::spawn(&mut command, &run).map_err(|error| explain(&run, &error))
}

/// The command of a run, complete but for its streams.
pub(crate) fn command(run: &Run) -> Result<Command, Cause> {
    let Some((program, arguments)) = run.command.split_first() else {
        return Err(failed(NOT_FOUND, "the container names no command".to_owned()));
    };
    check_folder(&run.working_dir).map_err(|why| failed(NOT_EXECUTABLE, why))?;
    if let Some(why) = find(program, run).and_then(|file| Host::why_no_program(&file, word(run))) {
        return Err(failed(NOT_EXECUTABLE, why));
    }
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(run.env.iter().map(|(name, value)| (name, value)));
    command.current_dir(&run.working_dir);
    Ok(command)
}

fn check_folder(folder: &Path) -> Result<(), String> {
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(format!("the working folder {} is not a folder", folder.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!("the working folder {} does not exist", folder.display())),
        Err(error) => Err(format!("the working folder {} can't be used: {error}", folder.display())),
    }
}

/// Why a command could not be started. It tells no value of the environment, which may be secret: not even that of PATH.
pub(crate) fn explain(run: &Run, error: &io::Error) -> Cause {
    let program = run.command.first().map_or("", String::as_str);
    let (word, is_path) = (word(run), program.contains(std::path::is_separator));
    match error.kind() {
        io::ErrorKind::NotFound if is_path => {
            failed(NOT_FOUND, format!("the program {word:?} does not exist, or what its first line asks for does not"))
        }
        io::ErrorKind::NotFound => nowhere(word),
        // A folder of PATH that may not be searched says so of every program.
        io::ErrorKind::PermissionDenied if !is_path && !is_in(path(run), program) => nowhere(word),
        io::ErrorKind::PermissionDenied => failed(NOT_EXECUTABLE, format!("the program {word:?} may not be executed")),
        _ => failed(NOT_EXECUTABLE, format!("the program {word:?} can't be started: {error}")),
    }
}

fn nowhere(word: &str) -> Cause {
    failed(NOT_FOUND, format!("the program {word:?} is in none of the folders of PATH, as the container has it"))
}

/// The program as people are told of it.
fn word(run: &Run) -> &str {
    run.program.as_ref().or(run.command.first()).map_or("", String::as_str)
}

fn path(run: &Run) -> &str {
    run.env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value.as_str())
}

/// The file that a program's name means. `None` when there is none.
fn find(program: &str, run: &Run) -> Option<PathBuf> {
    if program.contains(std::path::is_separator) {
        return Some(run.working_dir.join(program));
    }
    std::env::split_paths(path(run)).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn is_in(path: &str, program: &str) -> bool {
    std::env::split_paths(path).any(|folder| folder.join(program).exists())
}

/// Why a run was not even tried: it would not have been held within its limits.
pub(super) fn unlimited(error: &io::Error) -> Cause {
    failed(NOT_EXECUTABLE, format!("its limits can't be set: {error}"))
}

fn failed(code: i32, message: String) -> Cause {
    Cause::StartFailed { code, message }
}

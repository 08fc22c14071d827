//! What the kernel takes for a program, and what it hands to one.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{AccessFlags, SysconfVar, access, sysconf};

use crate::kubelet::os::length::Lengths;
use crate::kubelet::os::unix;

/// As much as the kernel looks at.
const LOOKED_AT: u64 = 256;
/// Programs may also be what handlers are registered for.
const HANDLERS: &str = "/proc/sys/fs/binfmt_misc";

/// All that a program is told has so many bytes at least and at most, however large its stack may become.
const LEAST: usize = 128 * 1024;
const MOST: usize = 6 * 1024 * 1024;

/// Why it takes a file for none. Asked after it has refused it, or where the C library would give it to a shell.
pub(super) fn why_not(path: &Path, word: &str) -> Option<String> {
    // Who may not execute it is told so without this.
    access(path, AccessFlags::X_OK).ok()?;
    let mut start = Vec::new();
    File::open(path).ok()?.take(LOOKED_AT).read_to_end(&mut start).ok()?;
    if let Some(rest) = start.strip_prefix(b"#!") {
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let interpreter = line.split(|byte| b" \t".contains(byte)).find(|word| !word.is_empty());
        let Some(interpreter) = interpreter else { return Some(format!("the script {word:?} names no interpreter behind #!")) };
        let interpreter = String::from_utf8_lossy(interpreter).into_owned();
        let is_missing = !Path::new(&interpreter).exists();
        return is_missing.then(|| format!("the interpreter {interpreter:?} of the script {word:?} does not exist"));
    }
    if start.starts_with(b"\x7fELF") || has_handlers() {
        return None;
    }
    Some(format!("{word:?} is neither a program of this system nor a script whose first line names an interpreter, such as #!/bin/sh"))
}

/// As execve(2) has it: a part of the stack, and no string of more than 32 pages.
pub(super) fn lengths() -> Lengths {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|page| usize::try_from(page).ok()).unwrap_or(4096);
    let stack = getrlimit(Resource::RLIMIT_STACK).map_or(0, |(stack, _)| usize::try_from(stack).unwrap_or(usize::MAX));
    Lengths { one: 32 * page, all: (stack / 4).clamp(LEAST, MOST) - unix::LENGTH_APART }
}

fn has_handlers() -> bool {
    let entries = std::fs::read_dir(HANDLERS).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| name != "register" && name != "status")
}

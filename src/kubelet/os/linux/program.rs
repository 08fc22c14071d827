//! Why the kernel takes a file for no program. Asked after it has refused it, or where the C library would give it to a shell.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

/// As much as the kernel looks at.
const LOOKED_AT: u64 = 256;
/// Programs may also be what handlers are registered for.
const HANDLERS: &str = "/proc/sys/fs/binfmt_misc";

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

fn has_handlers() -> bool {
    let entries = std::fs::read_dir(HANDLERS).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| name != "register" && name != "status")
}

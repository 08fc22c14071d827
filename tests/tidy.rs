//! What the compiler can't hold: who may import whom, where the operating systems differ, how large a file may grow, and which words stay out.
//!
//! One crate has no walls inside, so these tests are the walls. A failure names the file and line, and says what to do.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a module of the crate may import besides itself. DESIGN and ARCHITECTURE.md say why.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("api", &["error", "time"]),
    ("error", &["api", "time"]),
    ("time", &["api", "error"]),
    ("tasks", &[]),
    ("telemetry", &[]),
    ("arguments", &[]),
    ("store", &["api", "error", "time", "tasks"]),
    ("watch", &["api", "error", "time", "tasks", "store"]),
    ("apiserver", &["api", "error", "time", "tasks", "store", "watch"]),
    ("client", &["api", "error", "time", "tasks"]),
    ("reconcile", &["api", "error", "time", "tasks", "client"]),
    ("controllers", &["api", "error", "time", "tasks", "client", "reconcile"]),
    ("scheduler", &["api", "error", "time", "tasks", "client", "reconcile"]),
    ("kubelet", &["api", "error", "time", "tasks", "client", "reconcile"]),
    ("console", &["api", "error", "time", "tasks", "arguments", "client", "reconcile"]),
    ("cluster", &["api", "error", "time", "tasks", "client", "apiserver", "controllers", "scheduler", "kubelet"]),
    ("testing", &["api", "error", "time", "tasks", "client", "cluster", "apiserver", "controllers", "scheduler", "kubelet", "watch"]),
    ("bin", &["error", "time", "tasks", "telemetry", "arguments", "client", "apiserver", "kubelet", "cluster", "console"]),
];

/// Single files that may import more than their module, and why.
const MAY_ALSO_IMPORT: &[(&str, &[&str], &str)] = &[
    ("src/console/up.rs", &["cluster"], "`up` is the one command that is a cluster instead of asking one"),
    ("src/console/store.rs", &["store"], "`store` is the one command that looks at an apiserver's files instead of asking it"),
];

/// Crates that a module must not know, whatever it imports.
const MUST_NOT_NAME: &[(&str, &[&str])] = &[
    ("src/api/", &["tokio", "tonic", "std::fs", "std::env", "std::thread", "axum", "tracing"]),
    ("src/error/mod.rs", &["tokio", "tonic", "std::fs", "std::env", "axum"]),
    ("src/time.rs", &["tokio", "tonic", "std::fs", "tracing"]),
    ("src/store/", &["tonic", "axum"]),
    ("src/watch/", &["tonic", "axum"]),
];

/// Where they may be named all the same, and why.
const MAY_NAME: &[(&str, &[&str], &str)] = &[("src/store/backend/etcd/", &["tonic"], "etcd speaks gRPC")];

/// Files that decide and do nothing else: values in, values out.
const PURE: &[&str] =
    &["plan.rs", "plan/pod.rs", "plan/restart.rs", "decide.rs", "filters.rs", "score.rs", "phase.rs", "selector.rs", "routes/table.rs"];

/// What a pure file can't contain.
const IMPURE: &[&str] = &["async", "await", "tokio", "tracing", "SystemTime", "Instant", "Clock", "std::fs", "std::env"];

/// The one place where operating systems differ.
const OS_FOLDER: &str = "src/kubelet/os/";

/// Files outside of it that must tell systems apart, and why.
const MAY_TELL_SYSTEMS_APART: &[(&str, &str)] = &[
    ("src/store/backend/embedded/disk.rs", "Windows can't sync a folder, and the store doesn't know the kubelet"),
    ("src/apiserver/listen.rs", "Windows has no unix sockets in tokio, and the apiserver doesn't know the kubelet"),
    ("src/kubelet/routes/proxy.rs", "reusing an address means the opposite on Windows, where it would take it from whoever has it"),
];

const MAX_LINES: usize = 600;
const MAX_BIN_LINES: usize = 50;

#[test]
fn modules_import_only_what_the_table_allows() {
    let mut faults = Faults::default();
    for file in rust_files("src") {
        let (Some(module), false) = (file.module(), file.is_test()) else { continue };
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            faults.add(
                &file,
                1,
                format!("the module `{module}` is not in the table MAY_IMPORT of tests/tidy.rs: say there what it may import"),
            );
            continue;
        };
        let extra = MAY_ALSO_IMPORT.iter().find(|(path, ..)| *path == file.path).map_or(&[][..], |(_, extra, _)| extra);
        for (line, imported) in file.imports() {
            if imported != module && !allowed.contains(&imported.as_str()) && !extra.contains(&imported.as_str()) {
                faults.add(&file, line, format!("`{module}` must not import `{imported}`; it may import {}", allowed.join(", ")));
            }
        }
    }
    faults.report();
}

#[test]
fn modules_without_io_name_no_crate_that_does_io() {
    let mut faults = Faults::default();
    for file in rust_files("src").into_iter().filter(|file| !file.is_test()) {
        for (_, banned) in MUST_NOT_NAME.iter().filter(|(place, _)| file.path.starts_with(place)) {
            let allowed = MAY_NAME.iter().filter(|(place, ..)| file.path.starts_with(place)).flat_map(|(_, names, _)| *names);
            let allowed: Vec<_> = allowed.collect();
            for (line, name) in file.mentions(banned).into_iter().filter(|(_, name)| !allowed.contains(&name)) {
                faults.add(&file, line, format!("`{name}` does not belong here: move what needs it to a module that does IO"));
            }
        }
    }
    faults.report();
}

#[test]
fn deciding_files_are_pure() {
    let mut faults = Faults::default();
    for file in rust_files("src").into_iter().filter(|file| PURE.iter().any(|pure| file.path.ends_with(&format!("/{pure}")))) {
        for (line, word) in file.mentions(IMPURE) {
            faults.add(
                &file,
                line,
                format!("`{word}` in a file that only decides: observe before, act after, and take `now` as a parameter"),
            );
        }
    }
    faults.report();
}

#[test]
fn operating_systems_differ_in_one_folder() {
    let markers = ["unix", "windows", "target_os", "target_family", "std::os"];
    let mut faults = Faults::default();
    for file in rust_files("src").into_iter().filter(|file| !file.path.starts_with(OS_FOLDER)) {
        if MAY_TELL_SYSTEMS_APART.iter().any(|(path, _)| *path == file.path) {
            continue;
        }
        let following = file.code.lines().skip(1).chain([""]);
        for (number, (line, next)) in (1..).zip(file.code.lines().zip(following)) {
            // Tests of what only such systems do, in a file of their own.
            if line == "#[cfg(all(test, unix))]" && next.starts_with("mod ") && next.ends_with(';') {
                continue;
            }
            let tells_apart = line.contains("cfg(") || line.contains("cfg!(") || line.contains("cfg_attr(") || line.contains("std::os");
            if tells_apart && markers.iter().any(|marker| !occurrences(line, marker).is_empty()) {
                faults.add(
                    &file,
                    number,
                    format!("code for one operating system belongs in {OS_FOLDER}, behind a function for all of them"),
                );
            }
        }
    }
    faults.report();
}

#[test]
fn files_fit_one_sitting() {
    let mut faults = Faults::default();
    for file in all_files() {
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            faults.add(&file, lines, format!("{lines} lines, at most {MAX_LINES}: a second idea has moved in; give it a file of its own"));
        }
        if file.path.starts_with("src/bin/") && lines > MAX_BIN_LINES {
            faults.add(
                &file,
                lines,
                format!("{lines} lines, at most {MAX_BIN_LINES}: a binary parses, traces, binds and runs; the rest is a module's"),
            );
        }
    }
    faults.report();
}

#[test]
fn nothing_is_left_for_later() {
    let mut faults = Faults::default();
    for file in all_files().into_iter().filter(|file| file.path != "tests/tidy.rs") {
        for (line, word) in file.mentions(&["todo!", "unimplemented!", "dbg!", "#[ignore"]) {
            faults.add(&file, line, format!("`{word}`: finish it, or leave it out until it can be finished"));
        }
        for (number, line) in (1..).zip(file.text.lines()) {
            if line.contains("FIXME") || line.contains("XXX:") {
                faults.add(&file, number, "mend it, or write it down as an issue".to_owned());
            }
        }
    }
    faults.report();
}

#[test]
fn names_say_what_a_thing_is() {
    let empty_words = ["Manager", "Helper", "Util", "Utils", "Impl"];
    let mut faults = Faults::default();
    for file in all_files() {
        let name = file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        if !is_snake_case(name) || empty_words.iter().any(|word| name.split('_').any(|part| part.eq_ignore_ascii_case(word))) {
            faults.add(&file, 1, format!("a file is named in snake_case after the noun or decision in it, and `{name}` is neither"));
        }
        for (line, defined) in file.defined_types() {
            if empty_words.iter().any(|word| defined.ends_with(word)) {
                faults.add(&file, line, format!("`{defined}`: name what it is or does; this word says nothing"));
            }
        }
        for (line, test) in file.test_functions() {
            if test.starts_with("test_") || test.split('_').count() < 3 {
                faults.add(&file, line, format!("`{test}`: a test's name is the fact it proves, as a sentence"));
            }
        }
    }
    faults.report();
}

#[test]
fn what_the_documents_name_is_there() {
    let code: String = ["src", "tests", "fuzz"].into_iter().flat_map(rust_files).map(|file| file.text).collect();
    let functions: BTreeSet<&str> =
        code.split("fn ").skip(1).map(|rest| &rest[..rest.find(|c: char| !is_of_a_name(c)).unwrap_or(0)]).collect();
    let mut faults = Faults::default();
    for path in ["ARCHITECTURE.md", "docs/bugs.md"] {
        let document = File::new(path.to_owned(), std::fs::read_to_string(root().join(path)).expect("it is there"));
        for (number, line) in document.text.lines().enumerate() {
            // Every second piece is between backticks.
            for word in line.split('`').skip(1).step_by(2) {
                let is_test = word.matches('_').count() >= 3 && word.chars().all(is_of_a_name);
                let is_path = word.contains('/') && !word.starts_with('/') && word.chars().all(|c| is_of_a_name(c) || "/.-".contains(c));
                let is_there = || ["", "src/"].iter().any(|above| root().join(above).join(word).exists());
                if is_test && !functions.contains(word) {
                    faults.add(&document, number + 1, format!("there is no test `{word}`"));
                } else if is_path && !is_there() {
                    faults.add(&document, number + 1, format!("there is no file or folder `{word}`, nor below src/"));
                }
            }
        }
    }
    faults.report();
}

fn is_of_a_name(c: char) -> bool {
    c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit()
}

#[test]
fn the_code_is_formatted() {
    let cargo = env!("CARGO");
    if !Command::new(cargo).args(["fmt", "--version"]).output().is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: there is no `cargo fmt` here (rustup component add rustfmt)");
        return;
    }
    let output = Command::new(cargo).args(["fmt", "--check", "--", "-l"]).current_dir(root()).output().expect("cargo fmt runs");
    let files = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "not formatted, run `cargo fmt`:\n{files}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_import_is_seen_however_it_is_written() {
    let file = File::new(
        "src/kubelet/routes/proxy.rs".to_owned(),
        "use crate::{api::{Kind, v1}, error::Error};\nuse super::super::super::store::Store;\nuse super::table;\n// crate::watch\n\
         fn f<'a>(x: &'a str) -> char { let _ = \"crate::console\"; crate::time::now(x); '\"' }\n#[cfg(test)]\nmod tests { use crate::apiserver; }\n"
            .to_owned(),
    );
    let imports: Vec<_> = file.imports().into_iter().map(|(line, module)| format!("{line} {module}")).collect();
    assert_eq!(imports, ["1 api", "1 error", "2 store", "5 time"]);
}

/// What was found wrong, to be shown all at once.
#[derive(Default)]
struct Faults(String);

impl Faults {
    fn add(&mut self, file: &File, line: usize, what: String) {
        writeln!(self.0, "{}:{line}: {what}", file.path).expect("a string takes everything");
    }

    fn report(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn all_files() -> Vec<File> {
    ["src", "tests", "benches", "examples"].into_iter().flat_map(rust_files).collect()
}

fn rust_files(folder: &str) -> Vec<File> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("a readable folder").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(File::new(path_in_tree(&path), std::fs::read_to_string(&path).expect("a readable source file")));
            }
        }
    }
    assert!(!files.is_empty() || folder == "benches", "no sources under {folder}");
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn path_in_tree(path: &Path) -> String {
    let parts: PathBuf = path.strip_prefix(root()).expect("under the root").to_owned();
    parts.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// A source file: as written, and its code alone, in which comments, literals and inline test modules are blank.
struct File {
    path: String,
    text: String,
    code: String,
}

impl File {
    fn new(path: String, text: String) -> Self {
        let code = without_tests(&without_literals(&text));
        Self { path, text, code }
    }

    /// The module of the crate that it belongs to; `None` for lib.rs, which declares them all.
    fn module(&self) -> Option<String> {
        let rest = self.path.strip_prefix("src/")?;
        let first = rest.split('/').next()?.trim_end_matches(".rs");
        (first != "lib").then(|| first.to_owned())
    }

    /// How many `super` lead from here to the crate's root.
    fn depth(&self) -> usize {
        let rest = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs");
        rest.trim_end_matches("/mod").split('/').count()
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Each module of the crate that it names, with the line.
    fn imports(&self) -> BTreeSet<(usize, String)> {
        let to_root = ["super::"; 8][..self.depth()].concat();
        let mut found = BTreeSet::new();
        for start in ["crate::", "bluebird::", to_root.as_str()] {
            for position in occurrences(&self.code, start) {
                let line = self.code[..position].matches('\n').count() + 1;
                found.extend(first_segments(&self.code[position + start.len()..]).into_iter().map(|segment| (line, segment)));
            }
        }
        found
    }

    /// Each of these words in the code, with the line.
    fn mentions<'w>(&self, words: &[&'w str]) -> Vec<(usize, &'w str)> {
        let in_line = |line: &str| words.iter().copied().filter(|word| !occurrences(line, word).is_empty()).collect::<Vec<_>>();
        (1..).zip(self.code.lines()).flat_map(|(number, line)| in_line(line).into_iter().map(move |word| (number, word))).collect()
    }

    fn defined_types(&self) -> Vec<(usize, String)> {
        let defined = |line: &str| {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
            words.find(|word| matches!(*word, "struct" | "enum" | "trait" | "type"))?;
            words.next().map(str::to_owned)
        };
        (1..).zip(self.code.lines()).filter_map(|(number, line)| Some((number, defined(line)?))).collect()
    }

    fn test_functions(&self) -> Vec<(usize, String)> {
        let source = without_literals(&self.text);
        let mut found = Vec::new();
        let mut marked = false;
        for (number, line) in (1..).zip(source.lines().map(str::trim)) {
            match line.split_once("fn ") {
                _ if line.starts_with("#[test]") || line.starts_with("#[tokio::test") => marked = true,
                Some((_, rest)) if marked => {
                    found.push((number, rest.split(['(', '<']).next().unwrap_or_default().to_owned()));
                    marked = false;
                }
                _ => {}
            }
        }
        found
    }
}

fn is_snake_case(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Where `word` stands in `code` and is not part of a longer name.
fn occurrences(code: &str, word: &str) -> Vec<usize> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let ends_free = |end: usize| word.ends_with("::") || !code[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let begins_free = |start: usize| word.starts_with('#') || !code[..start].ends_with(is_name);
    code.match_indices(word).map(|(start, _)| start).filter(|start| begins_free(*start) && ends_free(start + word.len())).collect()
}

/// The first name of a path, or of every path of a `{…}` group.
fn first_segments(path: &str) -> Vec<String> {
    let name = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut segments, mut start) = (0, Vec::new(), 0);
    for (position, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                segments.push(name(&group[start..position]));
                start = position + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

/// The source with comments and the insides of literals blanked out, line by line where it was.
fn without_literals(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let blank = literal_len(&out, rest);
        match blank {
            0 => out.push(c),
            len => out.extend(rest[..len].chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
        }
        rest = &rest[blank.max(c.len_utf8())..];
    }
    out
}

/// How many bytes at the start of `rest` are a comment or a literal.
fn literal_len(before: &str, rest: &str) -> usize {
    let until = |end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    let after_name = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until("*/", 2);
    }
    if !after_name && (rest.starts_with('r') || rest.starts_with("br")) {
        let raw = rest.trim_start_matches('b').trim_start_matches('r');
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let opening = rest.len() - raw.len() + hashes + 1;
            return until(&format!("\"{}", "#".repeat(hashes)), opening);
        }
        return 0;
    }
    if rest.starts_with('"') {
        return quoted_len(rest, '"');
    }
    // A quote begins a character, unless it begins a lifetime.
    let mut chars = rest.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some('\''), Some('\\'), _) => quoted_len(rest, '\''),
        (Some('\''), Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

fn quoted_len(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (position, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return position + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The code with every `#[cfg(test)] mod … { … }` blanked out.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    for (start, marker) in code.match_indices("#[cfg(test)]") {
        let item = &code[start + marker.len()..];
        let Some(end) = item.find([';', '{']) else { continue };
        let mut depth = 0;
        let length = item[end..].char_indices().find_map(|(position, c)| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            (depth == 0).then_some(position + 1)
        });
        let end = start + marker.len() + end + length.unwrap_or(item.len() - end);
        let blank: String = code[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        if blank.len() == end - start {
            out.replace_range(start..end, &blank);
        }
    }
    out
}

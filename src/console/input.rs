//! Manifests from files, folders and standard input.

use std::path::{Path, PathBuf};

use super::Console;
use super::args::Files;
use super::failure::{Failure, Result};
use crate::api::manifest::Manifest;

/// The names that a manifest may end with in a folder.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads all manifests; objects without a namespace get the console's.
pub(super) fn read(console: &mut Console<'_>, files: &Files) -> Result<Manifest> {
    if files.files.is_empty() {
        return Err(Failure::Usage("say which manifests: -f FILE, -f FOLDER or -f - for standard input".into()));
    }
    let mut manifest = Manifest::new(console.namespace());
    let mut faults = Vec::new();
    for file in &files.files {
        for (source, text) in texts(console, file, files.recursive)? {
            if let Err(found) = manifest.read(&text, &source) {
                faults.extend(found.0);
            }
        }
    }
    if !faults.is_empty() {
        let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
        return Err(Failure::Failed(told.join("\n")));
    }
    check_namespaces(console, &manifest)?;
    if manifest.objects().is_empty() {
        return Err(Failure::Failed(format!("there are no objects in {}", files.files.join(", "))));
    }
    Ok(manifest)
}

/// Whoever says -n means that namespace and no other.
fn check_namespaces(console: &Console<'_>, manifest: &Manifest) -> Result<()> {
    let Some(wanted) = &console.target.namespace else { return Ok(()) };
    let others = manifest.objects().iter().filter(|object| object.kind().is_some_and(|kind| kind.is_namespaced()));
    match others.filter_map(|object| object.key()).find(|key| key.namespace() != wanted) {
        Some(key) => {
            let place = manifest.place(&key).map_or_else(String::new, |place| format!("{place}: "));
            let message = format!("{place}metadata.namespace: {key} is not in the namespace {wanted:?} that was asked for with -n");
            Err(Failure::Failed(message))
        }
        None => Ok(()),
    }
}

/// The texts behind one -f, each with its name.
fn texts(console: &mut Console<'_>, file: &str, recursive: bool) -> Result<Vec<(String, String)>> {
    if file == "-" {
        let mut text = String::new();
        let read = console.io.input.read_to_string(&mut text);
        return read.map(|_| vec![("standard input".to_owned(), text)]).map_err(|error| cannot_read("standard input", &error));
    }
    let path = Path::new(file);
    let mut files = Vec::new();
    if path.is_dir() {
        find(path, recursive, &mut files).map_err(|error| cannot_read(file, &error))?;
        if files.is_empty() {
            let hint = if recursive { "" } else { "; -R looks into the folders within" };
            return Err(Failure::Failed(format!("there is no .yaml, .yml or .json file in {file}{hint}")));
        }
    } else {
        files.push(path.to_owned());
    }
    files
        .into_iter()
        .map(|path| {
            let name = path.display().to_string();
            std::fs::read_to_string(&path).map(|text| (name.clone(), text)).map_err(|error| cannot_read(&name, &error))
        })
        .collect()
}

/// The manifests in a folder, in the order of their names.
fn find(folder: &Path, recursive: bool, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut paths = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if recursive {
                find(&path, recursive, found)?;
            }
        } else if path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known)) {
            found.push(path);
        }
    }
    Ok(())
}

fn cannot_read(name: &str, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot read {name}: {error}"))
}

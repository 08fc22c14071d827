//! Which executable keeps the pods of a test's kubelets.

use std::path::{Path, PathBuf};

/// Names the executable when it isn't where tests find it by themselves.
pub(super) const VARIABLE: &str = "BLUEBIRD_SHIM";

/// The executable: as given, else from the environment, else `kubelet` beside the running executable or one folder above (`cargo test` runs
/// target/debug/deps/…), else from PATH. Says what to do if there is none.
pub(crate) fn find(given: Option<PathBuf>) -> Result<PathBuf, String> {
    if let Some(path) = given.or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from)) {
        return match path.is_file() {
            true => Ok(path),
            false => Err(format!("{} is no file; the shim of a test's kubelets has to be BlueBird's kubelet executable", path.display())),
        };
    }
    let name = format!("kubelet{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok();
    let folders = beside.iter().flat_map(|exe| exe.ancestors().skip(1).take(2)).map(Path::to_path_buf);
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.chain(std::env::split_paths(&path)).map(|folder| folder.join(&name)).find(|path| path.is_file()).ok_or_else(|| {
        format!(
            "no `kubelet` executable beside this test, one folder above it, or in PATH. Build it (`cargo build --bin kubelet`), name it in the \
             environment variable {VARIABLE}, or give it to the builder: `.shim(env!(\"CARGO_BIN_EXE_kubelet\"))`"
        )
    })
}

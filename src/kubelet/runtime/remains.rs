//! What is left of pods when nobody answers for it any more: found by the marks in its environment, and by the control groups that it is in, where there
//! are any. What hides its environment where there are no control groups is not found.

use std::io;
use std::path::Path;

use crate::kubelet::os::fence::Places;
use crate::kubelet::os::{Host, Os, until_none_is_left};
use crate::kubelet::shim::{POD_VARIABLE, ROOT_VARIABLE, SHIM_VARIABLE};
use crate::kubelet::uid::PodUid;

/// Kills what is left of a pod, its shim first of all; gives how many processes there were.
pub(super) fn kill(root: &Path, places: &Places, uid: &PodUid) -> io::Result<usize> {
    let is_doomed = |pod: &str| pod == uid.as_str();
    // What one way can't make an end of holds up no other.
    let (shims, placed, marked) = (kill_shims(root, is_doomed), places.kill(uid.as_str()), kill_marked(root, is_doomed));
    Ok(shims? + placed? + marked?)
}

/// Kills what belongs to pods that are not known, and their shims; gives how many processes there were.
pub(super) fn kill_unknown(root: &Path, is_known: impl Fn(&str) -> bool) -> io::Result<usize> {
    let (shims, marked) = (kill_shims(root, |pod| !is_known(pod)), kill_marked(root, |pod| !is_known(pod)));
    Ok(shims? + marked?)
}

/// Kills what carries the mark of a root folder and belongs to a doomed pod. Shims carry none.
pub(crate) fn kill_marked(root: &Path, is_doomed: impl Fn(&str) -> bool) -> io::Result<usize> {
    let root = root.to_string_lossy();
    let is_doomed = |variable: &dyn Fn(&str) -> Option<String>| {
        variable(ROOT_VARIABLE).as_deref() == Some(&*root) && variable(POD_VARIABLE).is_some_and(|pod| is_doomed(&pod))
    };
    until_none_is_left(|| Host::kill_all(is_doomed))
}

/// Kills the shims of doomed pods. What they have started is killed afterwards: otherwise they would see it end.
fn kill_shims(root: &Path, is_doomed: impl Fn(&str) -> bool) -> io::Result<usize> {
    let pods = root.join("pods");
    let is_doomed = |variable: &dyn Fn(&str) -> Option<String>| {
        let folder = variable(SHIM_VARIABLE);
        let pod = folder.as_deref().and_then(|folder| Path::new(folder).strip_prefix(&pods).ok()?.to_str());
        pod.is_some_and(&is_doomed)
    };
    until_none_is_left(|| Host::kill_all(is_doomed))
}

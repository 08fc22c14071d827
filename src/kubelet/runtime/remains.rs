//! What is left of pods when nobody answers for it any more: found by the marks in its environment, and by the control groups that it is in, where there
//! are any. What hides its environment where there are no control groups is not found.

use std::io;
use std::path::Path;

use crate::kubelet::os::fence::Places;
use crate::kubelet::os::{Host, Os, until_none_is_left};
use crate::kubelet::shim::{POD_VARIABLE, ROOT_VARIABLE, SHIM_VARIABLE};
use crate::kubelet::uid::PodUid;

/// Kills what a pod's containers have started; gives which processes there were. One that doesn't end is there again the next time.
pub(super) fn kill_contained(root: &Path, places: &Places, uid: &PodUid) -> io::Result<Vec<i32>> {
    // What one way can't make an end of holds up no other.
    let (placed, marked) = (places.kill(uid.as_str()), Host::kill_all(is_marked(root, |pod| pod == uid.as_str())));
    Ok([placed?, marked?].concat())
}

/// Kills a pod's shim; gives which process it was.
pub(super) fn kill_shim(root: &Path, uid: &PodUid) -> io::Result<Vec<i32>> {
    Host::kill_all(is_shim(root, |pod| pod == uid.as_str()))
}

/// Kills what belongs to pods that are not known, and their shims; gives how many processes there were.
pub(super) fn kill_unknown(root: &Path, is_known: impl Fn(&str) -> bool) -> io::Result<usize> {
    let (shims, marked) = (kill_shims(root, |pod| !is_known(pod)), kill_marked(root, |pod| !is_known(pod)));
    Ok(shims? + marked?)
}

/// Kills what carries the mark of a root folder and belongs to a doomed pod. Shims carry none.
pub(crate) fn kill_marked(root: &Path, is_doomed: impl Fn(&str) -> bool) -> io::Result<usize> {
    until_none_is_left(|| Ok(Host::kill_all(is_marked(root, &is_doomed))?.len()))
}

/// Kills the shims of doomed pods. What they have started is killed afterwards: otherwise they would see it end.
fn kill_shims(root: &Path, is_doomed: impl Fn(&str) -> bool) -> io::Result<usize> {
    until_none_is_left(|| Ok(Host::kill_all(is_shim(root, &is_doomed))?.len()))
}

/// A process of one of these pods of a root folder, its shim included, if one lives.
pub(crate) fn any_of(root: &Path, is_meant: impl Fn(&str) -> bool) -> io::Result<Option<i32>> {
    let (is_marked, is_shim) = (is_marked(root, &is_meant), is_shim(root, &is_meant));
    let belongs = |pid: i32| {
        let variable = |name: &str| Host::variable_of(pid, name);
        is_marked(&variable) || is_shim(&variable)
    };
    Ok(Host::processes()?.into_iter().map(|process| process.pid).find(|pid| belongs(*pid)))
}

/// Tells a variable of a process by its name.
type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

fn is_marked(root: &Path, is_doomed: impl Fn(&str) -> bool) -> impl Fn(Variable<'_>) -> bool {
    let root = root.to_string_lossy().into_owned();
    move |variable| variable(ROOT_VARIABLE).as_deref() == Some(&*root) && variable(POD_VARIABLE).is_some_and(|pod| is_doomed(&pod))
}

fn is_shim(root: &Path, is_doomed: impl Fn(&str) -> bool) -> impl Fn(Variable<'_>) -> bool {
    let pods = root.join("pods");
    move |variable| {
        let folder = variable(SHIM_VARIABLE);
        let pod = folder.as_deref().and_then(|folder| Path::new(folder).strip_prefix(&pods).ok()?.to_str());
        pod.is_some_and(&is_doomed)
    }
}

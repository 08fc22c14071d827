use std::sync::Arc;

use super::super::LIMITS;
use super::super::files::Loaded;
use super::faulty::FaultyDisk;
use super::{Files, TINY, open_on, record_of};
use crate::api::Revision;
use crate::store::fixtures::{Script, contents, delete, pod, put, service, transaction};
use crate::store::{Commit, History, HistoryLimits};

#[test]
fn files_give_back_what_was_appended_whatever_their_limits() {
    for limits in [TINY, LIMITS] {
        let folder = tempfile::tempdir().unwrap();
        check(&|| open_on(Arc::new(FaultyDisk::default()), folder.path(), limits).unwrap());
    }
}

fn check(open: &dyn Fn() -> Files) {
    let cluster_id = a_new_place_is_an_empty_cluster_that_keeps_its_id(open);
    let (script, commits) = what_was_appended_is_loaded_without_a_close(open);
    compaction_and_close_lose_nothing(open, script, commits);
    assert_eq!(load(&mut open(), HistoryLimits::default()).0.cluster_id, cluster_id);
}

fn a_new_place_is_an_empty_cluster_that_keeps_its_id(open: &dyn Fn() -> Files) -> String {
    let (first, history) = load(&mut open(), HistoryLimits::default());
    assert_eq!((first.state.revision(), first.state.len(), history.len()), (Revision::ZERO, 0, 0));
    assert!(!first.cluster_id.is_empty());
    let (second, _) = load(&mut open(), HistoryLimits::default());
    assert_eq!(second.cluster_id, first.cluster_id);
    first.cluster_id
}

fn what_was_appended_is_loaded_without_a_close(open: &dyn Fn() -> Files) -> (Script, Vec<Arc<Commit>>) {
    let mut files = open();
    let mut script = Script { state: load(&mut files, HistoryLimits::default()).0.state };
    let mut commits = Vec::new();
    let batches = [
        vec![transaction([put(pod("a", "", &[("app", "web")])), put(service("s"))])],
        // Labels and node change: what they were before has to survive.
        vec![transaction([put(pod("a", "n1", &[("app", "db")]))]), transaction([put(pod("b", "n1", &[]))])],
        vec![transaction([delete("a"), put(pod("c", "n2", &[]))])],
    ];
    for batch in batches {
        let (state, appended) = script.batch(batch);
        files.append(&mut record_of(&appended)).expect("a disk that works");
        script.state = state;
        commits.extend(appended);
    }
    drop(files);
    let (loaded, history) = load(&mut open(), HistoryLimits::default());
    assert_eq!(contents(&loaded.state), contents(&script.state));
    assert_eq!(history, commits);
    (script, commits)
}

fn compaction_and_close_lose_nothing(open: &dyn Fn() -> Files, mut script: Script, mut commits: Vec<Arc<Commit>>) {
    for round in 0..3 {
        let mut files = open();
        load(&mut files, HistoryLimits::default());
        for number in 0..40 {
            let (state, appended) =
                script.batch([transaction([put(pod(&format!("p{}", number % 7), "n", &[("round", &round.to_string())]))])]);
            files.append(&mut record_of(&appended)).expect("a disk that works");
            script.state = state;
            commits.extend(appended);
            files.compact(&script.state, Revision(script.state.revision().0.saturating_sub(20)));
        }
        files.close(&script.state);
        drop(files);

        let (loaded, history) = load(&mut open(), HistoryLimits::default());
        assert_eq!(contents(&loaded.state), contents(&script.state));
        assert!(history.len() >= 20, "the history that was asked for is kept: {}", history.len());
        assert_eq!(history, commits[commits.len() - history.len()..]);
        let (_, short) = load(&mut open(), HistoryLimits { revisions: 5, bytes: usize::MAX, ..HistoryLimits::default() });
        assert_eq!(short, commits[commits.len() - 5..]);
    }
}

fn load(files: &mut Files, limits: HistoryLimits) -> (Loaded, Vec<Arc<Commit>>) {
    let mut history = History::new(limits, Revision::ZERO);
    let loaded = files.load(&mut history).expect("a sound place");
    let commits = history.after(history.oldest(), usize::MAX).expect("the oldest can be resumed from");
    (loaded, commits)
}

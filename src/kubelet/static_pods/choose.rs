//! Which static pods there are, by what the files say and what there was before. Decisions only.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::v1::Pod;
use crate::api::{ObjectKey, Resource, STATIC_POD_FILE_ANNOTATION};
use crate::kubelet::uid::PodUid;

/// The most static pods of a node.
const MAX_PODS: usize = 256;

/// The static pods of a node.
pub(crate) type StaticPods = BTreeMap<PodUid, Arc<Pod>>;

/// What was read: each file with its pods, or with what is wrong with it.
pub(super) type Files = BTreeMap<String, Result<Vec<Pod>, String>>;

/// Whose file it is, of a static pod.
pub(super) fn file_of(pod: &Pod) -> &str {
    pod.meta().annotations.get(STATIC_POD_FILE_ANNOTATION).map_or("", String::as_str)
}

/// The static pods from now on, and what is wrong with the files. A broken file's pods stay as they were before. Of two files with a pod of one name the
/// one counts that had it before; without one, the first by its name.
pub(super) fn choose(before: &StaticPods, files: Files) -> (StaticPods, Vec<String>) {
    let mut faults = Vec::new();
    let mut by_name: BTreeMap<ObjectKey, Vec<(String, Arc<Pod>)>> = BTreeMap::new();
    for (file, read) in files {
        let pods: Vec<Arc<Pod>> = match read {
            Ok(pods) => pods.into_iter().map(Arc::new).collect(),
            Err(fault) => {
                faults.push(fault);
                before.values().filter(|pod| file_of(pod) == file).cloned().collect()
            }
        };
        for pod in pods {
            by_name.entry(pod.key()).or_default().push((file.clone(), pod));
        }
    }
    let had = |key: &ObjectKey| before.values().find(|pod| pod.key() == *key).map(|pod| file_of(pod).to_owned());
    let (mut chosen, mut new) = (StaticPods::new(), Vec::new());
    for (key, mut candidates) in by_name {
        let had = had(&key);
        let index = candidates.iter().position(|(file, _)| Some(file) == had.as_ref()).unwrap_or(0);
        let (first, pod) = candidates.remove(index);
        faults.extend(candidates.iter().map(|(file, _)| format!("{file}: {key} is in {first} already and counts only there")));
        let Some(uid) = PodUid::new(&pod.meta().uid) else { continue };
        match had {
            Some(_) => drop(chosen.insert(uid, pod)),
            None => new.push((uid, pod)),
        }
    }
    // Those that are there already are not too many.
    for (uid, pod) in new {
        if chosen.len() < MAX_PODS {
            chosen.insert(uid, pod);
        } else {
            faults.push(format!("{}: {} is one too many: a node has at most {MAX_PODS} static pods", file_of(&pod), pod.key()));
        }
    }
    (chosen, faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::static_pods::manifest;

    fn pod(file: &str, name: &str, seconds: u32) -> Pod {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: main, command: [sleep, '{seconds}']}}]}}\n"
        );
        manifest::read(file, &text, "n1").unwrap().remove(0)
    }

    /// `file: name seconds` → the chosen, as the same, and how many faults there are.
    #[track_caller]
    fn check(before: &StaticPods, files: &[(&str, Option<(&str, u32)>)], expected: &[(&str, &str, u32)], faults: &[&str]) -> StaticPods {
        let read = |(file, pod): &(&str, Option<(&str, u32)>)| {
            let read = pod.map(|(name, seconds)| vec![self::pod(file, name, seconds)]).ok_or_else(|| format!("{file}: broken"));
            ((*file).to_owned(), read)
        };
        let (chosen, found) = choose(before, files.iter().map(read).collect());
        let mut all: Vec<_> = expected.iter().map(|(file, name, seconds)| self::pod(file, name, *seconds)).collect();
        all.sort_by(|a, b| a.meta().uid.cmp(&b.meta().uid));
        assert_eq!(chosen.values().map(|pod| (**pod).clone()).collect::<Vec<_>>(), all);
        assert_eq!(found, faults);
        chosen
    }

    #[test]
    fn a_changed_file_changes_its_pod_and_a_removed_one_ends_it() {
        let first = check(
            &StaticPods::new(),
            &[("a.yaml", Some(("a", 1))), ("b.yaml", Some(("b", 1)))],
            &[("a.yaml", "a", 1), ("b.yaml", "b", 1)],
            &[],
        );
        let second =
            check(&first, &[("a.yaml", Some(("a", 2))), ("b.yaml", Some(("b", 1)))], &[("a.yaml", "a", 2), ("b.yaml", "b", 1)], &[]);
        let third = check(&second, &[("b.yaml", Some(("b", 1)))], &[("b.yaml", "b", 1)], &[]);
        let renamed = check(&third, &[("c.yaml", Some(("b", 1)))], &[("c.yaml", "b", 1)], &[]);
        assert!(third.keys().eq(renamed.keys()), "the same pod in another file");
        check(&renamed, &[], &[], &[]);
    }

    #[test]
    fn the_pod_of_a_broken_file_stays_as_it_was() {
        let first = check(&StaticPods::new(), &[("a.yaml", Some(("a", 1)))], &[("a.yaml", "a", 1)], &[]);
        let broken = check(&first, &[("a.yaml", None)], &[("a.yaml", "a", 1)], &["a.yaml: broken"]);
        check(&broken, &[("a.yaml", Some(("a", 3)))], &[("a.yaml", "a", 3)], &[]);
        check(&broken, &[], &[], &[]);
        check(&StaticPods::new(), &[("a.yaml", None)], &[], &["a.yaml: broken"]);
    }

    #[test]
    fn of_two_files_with_a_pod_of_one_name_the_first_keeps_it() {
        let told = "a.yaml: Pod/default/x-n1 is in b.yaml already and counts only there";
        let first = check(&StaticPods::new(), &[("b.yaml", Some(("x", 1)))], &[("b.yaml", "x", 1)], &[]);
        let second = check(&first, &[("a.yaml", Some(("x", 2))), ("b.yaml", Some(("x", 1)))], &[("b.yaml", "x", 1)], &[told]);
        check(&second, &[("a.yaml", Some(("x", 2))), ("b.yaml", Some(("x", 3)))], &[("b.yaml", "x", 3)], &[told]);
        check(&second, &[("a.yaml", Some(("x", 2))), ("b.yaml", None)], &[("b.yaml", "x", 1)], &["b.yaml: broken", told]);
        check(&second, &[("a.yaml", Some(("x", 2)))], &[("a.yaml", "x", 2)], &[]);
        let other = "b.yaml: Pod/default/x-n1 is in a.yaml already and counts only there";
        check(&StaticPods::new(), &[("a.yaml", Some(("x", 2))), ("b.yaml", Some(("x", 1)))], &[("a.yaml", "x", 2)], &[other]);
    }

    #[test]
    fn a_pod_beyond_the_most_is_left_out_and_told_and_those_before_it_stay() {
        let names: Vec<String> = (0..=MAX_PODS).map(|number| format!("p{number:03}")).collect();
        let files =
            |names: &[String]| names.iter().map(|name| (format!("{name}.yaml"), Ok(vec![pod(&format!("{name}.yaml"), name, 1)]))).collect();
        let (last, faults) = choose(&StaticPods::new(), files(&names[1..]));
        assert_eq!((last.len(), faults.len()), (MAX_PODS, 0));
        let (all, faults) = choose(&last, files(&names));
        assert_eq!((all.keys().eq(last.keys()), faults.len()), (true, 1), "{faults:?}");
        assert!(faults[0].starts_with("p000.yaml: Pod/default/p000-n1 is one too many"), "{faults:?}");
    }
}

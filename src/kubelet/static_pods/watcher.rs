use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{Chosen, Folder, StaticPods, subject};
use crate::api::v1::EventType;
use crate::client::Recorder;

/// How often the folder is read though nobody told of a change: what stands behind links and on file systems of others changes silently.
const RESCAN: Duration = Duration::from_secs(20);
/// What differs from before counts when the folder says the same again after this long: where changes are told, and where they are not, which is on slower
/// file systems. A folder that never says the same twice is taken as it is after so many looks.
const SETTLING: Duration = Duration::from_millis(50);
const SETTLING_UNTOLD: Duration = Duration::from_millis(500);
const SETTLINGS: usize = 20;

/// What the folder says: its pods, and what is wrong.
type Found = (StaticPods, Vec<String>);

/// Reads the folder whenever it changes, and tells which static pods there are.
#[derive(Debug)]
pub(crate) struct Watcher {
    /// `None`: this kubelet has no static pods, and none of an earlier one's goes on.
    folder: Option<Arc<Folder>>,
    node: String,
    chosen: watch::Sender<Arc<StaticPods>>,
    /// What was wrong at the last look, so that it is told once.
    faults: Vec<String>,
}

impl Watcher {
    pub(crate) fn new(path: Option<&Path>, node: &str) -> Self {
        let folder = path.map(|path| Arc::new(Folder::new(path, node)));
        Self { folder, node: node.to_owned(), chosen: watch::Sender::default(), faults: Vec::new() }
    }

    /// Looks for the first time. `before` are the static pods of an earlier kubelet.
    pub(crate) async fn begin(&mut self, before: StaticPods) {
        self.chosen.send_replace(Arc::new(before));
        self.look(SETTLING).await;
        self.faults.iter().for_each(|fault| tracing::warn!("{fault}"));
    }

    /// The static pods, as they change.
    pub(crate) fn chosen(&self) -> Chosen {
        self.chosen.subscribe()
    }

    /// Looks whenever something changes, until the token is cancelled; `tell` hears of each change of the pods.
    pub(crate) async fn run(mut self, recorder: Recorder, tell: impl Fn() + Send, token: CancellationToken) {
        self.record(&recorder);
        let changed = Arc::new(Notify::new());
        let mut bell = self.listen(&changed);
        let mut rescan = interval(RESCAN);
        rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_told = tokio::select! {
                () = token.cancelled() => return,
                () = changed.notified() => true,
                _ = rescan.tick() => false,
            };
            let (before, told) = (self.chosen.borrow().clone(), self.faults.clone());
            if token.run_until_cancelled(self.look(if is_told { SETTLING } else { SETTLING_UNTOLD })).await.is_none() {
                return;
            }
            if self.faults != told {
                self.faults.iter().for_each(|fault| tracing::warn!("{fault}"));
                self.record(&recorder);
            }
            if *self.chosen.borrow() != before {
                tell();
            }
            if bell.is_none() || !is_told {
                // A folder that was put in the place of another one has to be listened to anew.
                bell = self.listen(&changed);
            }
        }
    }

    async fn look(&mut self, pause: Duration) {
        let Some(folder) = self.folder.clone() else {
            self.chosen.send_replace(Arc::default());
            return;
        };
        let known = self.chosen.borrow().clone();
        let before = ((*known).clone(), self.faults.clone());
        let (chosen, faults) = settled(&before, pause, || read(folder.clone(), known.clone())).await;
        self.chosen.send_if_modified(|known| {
            let differs = **known != chosen;
            if differs {
                *known = Arc::new(chosen);
            }
            differs
        });
        self.faults = faults;
    }

    fn record(&self, recorder: &Recorder) {
        if !self.faults.is_empty() {
            recorder.event(subject(&self.node), EventType::Warning, "FailedManifest", self.faults.join("\n"));
        }
    }

    fn listen(&self, changed: &Arc<Notify>) -> Option<RecommendedWatcher> {
        let path = &self.folder.as_ref()?.path;
        let bell = changed.clone();
        let heard = move |event: notify::Result<notify::Event>| {
            // What was only read has not changed.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                bell.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(heard).and_then(|mut watcher| {
            watcher.watch(path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::debug!(folder = %path.display(), %error, "the folder can't be listened to; it is read from time to time");
                None
            }
        }
    }
}

async fn read(folder: Arc<Folder>, before: Arc<StaticPods>) -> Found {
    let known = before.clone();
    match tokio::task::spawn_blocking(move || folder.look(&known)).await {
        Ok(found) => found,
        Err(error) => ((*before).clone(), vec![format!("the folder of static pods can't be looked at: {error}")]),
    }
}

/// What two looks agree on. Between them an editor may have moved a file away and not yet put the new one there, or a file is there by half.
async fn settled<L: Future<Output = Found>>(before: &Found, pause: Duration, mut look: impl FnMut() -> L) -> Found {
    let mut found = look().await;
    for _ in 0..SETTLINGS {
        if found == *before {
            break;
        }
        sleep(pause).await;
        let again = look().await;
        if again == found {
            break;
        }
        found = again;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::static_pods::choose::choose;
    use crate::kubelet::static_pods::manifest;

    fn found(names: &[&str]) -> Found {
        let text = |name: &&str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: main, command: [sleep, '60']}}]}}\n"
            )
        };
        let all = names.iter().map(text).collect::<Vec<_>>().join("---\n");
        choose(&StaticPods::new(), [("all.yaml".to_owned(), manifest::read("all.yaml", &all, "n1"))].into())
    }

    /// What comes of looks that say this one after the other, the last one for ever; and how many looks it took.
    async fn check(before: &[&str], looks: &[&[&str]], expected: &[&str], number: usize) {
        let mut count = 0;
        let look = || {
            let now = looks[count.min(looks.len() - 1)];
            count += 1;
            async move { found(now) }
        };
        assert_eq!(settled(&found(before), SETTLING, look).await, found(expected), "{looks:?}");
        assert_eq!(count, number, "{looks:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_whose_file_is_away_for_a_moment_or_there_by_half_stays() {
        check(&["web", "db"], &[&["web", "db"]], &["web", "db"], 1).await;
        check(&["web", "db"], &[&["db"], &["web", "db"]], &["web", "db"], 2).await;
        check(&["web"], &[&["web", "db"], &["web", "db"]], &["web", "db"], 2).await;
        check(&["web"], &[&[], &["other"], &["other"]], &["other"], 3).await;
        check(&["web"], &[&[], &[]], &[], 2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_never_settles_is_taken_as_it_is_in_the_end() {
        let names: Vec<String> = (0..50).map(|number| format!("p{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let looks: Vec<&[&str]> = names.chunks(1).collect();
        check(&["web"], &looks, &[names[SETTLINGS]], SETTLINGS + 1).await;
    }
}

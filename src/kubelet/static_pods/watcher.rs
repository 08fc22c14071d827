use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{Chosen, Folder, StaticPods, subject};
use crate::api::v1::EventType;
use crate::client::Recorder;

/// How often the folder is read though nobody told of a change: what stands behind links and on file systems of others changes silently.
const RESCAN: Duration = Duration::from_secs(20);
/// A file that is being written is given this long without a change, a few times.
const SETTLING: Duration = Duration::from_millis(50);
const SETTLINGS: usize = 20;

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
        self.faults = self.look().await;
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
            for _ in 0..if is_told { SETTLINGS } else { 0 } {
                if timeout(SETTLING, changed.notified()).await.is_err() {
                    break;
                }
            }
            let before = self.chosen.borrow().clone();
            let (told, found) = (std::mem::take(&mut self.faults), self.look().await);
            self.faults = found;
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

    async fn look(&mut self) -> Vec<String> {
        let (folder, before) = (self.folder.clone(), self.chosen.borrow().clone());
        let Some(folder) = folder else {
            self.chosen.send_replace(Arc::default());
            return Vec::new();
        };
        match tokio::task::spawn_blocking(move || folder.look(&before)).await {
            Ok((chosen, faults)) => {
                self.chosen.send_if_modified(|known| {
                    let differs = **known != chosen;
                    if differs {
                        *known = Arc::new(chosen);
                    }
                    differs
                });
                faults
            }
            Err(error) => vec![format!("the folder of static pods can't be looked at: {error}")],
        }
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

//! What this node and its pods use. Nothing is measured while nobody wants to know.

mod folders;
mod meter;
mod trees;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use folders::Folders;
pub(crate) use meter::Ground;
use meter::Meter;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pods::Pods;
use super::uid::PodUid;
use crate::api::v1::Usage;

/// Over how long the first figures are measured, which somebody waits for.
const FIRST_WINDOW: Duration = Duration::from_millis(500);
/// Over how long others are measured at least: clocks of processes tick a hundred times a second.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);

/// A pod that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunningPod {
    pub(crate) uid: PodUid,
    /// Its containers that run, with their main processes.
    pub(crate) containers: Vec<(String, i32)>,
}

/// Who wants figures, and the figures.
#[derive(Clone, Debug)]
pub(crate) struct Usages {
    wish: Arc<watch::Sender<Option<Wish>>>,
    measured: Arc<watch::Sender<Option<Arc<Usage>>>>,
}

/// What the session wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Until when.
    pub(crate) until: Instant,
    /// How often.
    pub(crate) every: Duration,
}

impl Usages {
    pub(crate) fn new() -> Self {
        Self { wish: Arc::new(watch::Sender::new(None)), measured: Arc::new(watch::Sender::new(None)) }
    }

    /// Has figures measured, or not any more.
    pub(crate) fn want(&self, wish: Option<Wish>) {
        self.wish.send_replace(wish);
    }

    /// The newest figures; `None` while nobody wants any.
    pub(crate) fn measured(&self) -> watch::Receiver<Option<Arc<Usage>>> {
        self.measured.subscribe()
    }

    /// Measures whenever figures are wanted, until the token is cancelled.
    pub(crate) async fn run(self, pods: Arc<Mutex<Pods>>, token: CancellationToken) {
        let measure = async {
            let mut wish = self.wish.subscribe();
            while wish.wait_for(|wish| is_wanted(*wish)).await.is_ok() {
                if let Err(error) = self.measure(&pods, &mut wish).await {
                    tracing::error!(%error, "what is used can't be measured");
                }
                self.measured.send_replace(None);
            }
        };
        token.run_until_cancelled(measure).await;
    }

    /// Measures for as long as it is wanted.
    async fn measure(&self, pods: &Arc<Mutex<Pods>>, wish: &mut watch::Receiver<Option<Wish>>) -> Result<(), tokio::task::JoinError> {
        let mut folders = Folders::default();
        let (mut meter, _) = look(Meter::default(), pods.clone(), &mut folders).await?;
        let mut window = FIRST_WINDOW;
        loop {
            tokio::time::sleep(window).await;
            let Some(Wish { every, .. }) = wish.borrow_and_update().filter(|wish| is_wanted(Some(*wish))) else { return Ok(()) };
            window = every.max(SHORTEST_WINDOW);
            let (next, usage) = look(meter, pods.clone(), &mut folders).await?;
            meter = next;
            self.measured.send_replace(Some(Arc::new(usage)));
        }
    }
}

fn is_wanted(wish: Option<Wish>) -> bool {
    wish.is_some_and(|wish| wish.until > Instant::now())
}

/// Looks at everything, in a thread: files are read.
async fn look(mut meter: Meter, pods: Arc<Mutex<Pods>>, folders: &mut Folders) -> Result<(Meter, Usage), tokio::task::JoinError> {
    let sizes = folders.sizes().await;
    let looked = tokio::task::spawn_blocking(move || {
        let (running, ground) = {
            let pods = pods.lock().unwrap_or_else(PoisonError::into_inner);
            (pods.running(), pods.ground())
        };
        let usage = meter.look(&running, &ground, &sizes);
        (meter, usage, running, ground)
    });
    let (meter, usage, running, ground) = looked.await?;
    folders.look_again(running.into_iter().map(|pod| (pod.uid.clone(), ground.root.pod(&pod.uid).path().to_owned())).collect());
    Ok((meter, usage))
}

//! Every task has an owner that awaits it.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The tasks of one owner. They end when the token is cancelled; whoever drops this without [`Tasks::shutdown`] aborts them.
#[derive(Debug)]
pub struct Tasks {
    token: CancellationToken,
    running: Mutex<JoinSet<&'static str>>,
}

impl Tasks {
    /// No tasks yet; `token` ends them all.
    pub fn new(token: CancellationToken) -> Self {
        Self { token, running: Mutex::new(JoinSet::new()) }
    }

    /// The token that ends them.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts a task. It must end soon after the token is cancelled; a panic in it is logged with its name and ends its owner.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        let guarded = async move {
            let guard = EndsOwnerOnPanic { name, token };
            task.await;
            std::mem::forget(guard);
            name
        };
        let mut running = self.running.lock().expect("no panic while held");
        while running.try_join_next().is_some() {}
        running.spawn(guarded);
    }

    /// Ends all tasks and waits for them, at most `grace`; aborts and names what is left then.
    pub async fn shutdown(&self, grace: Duration) {
        self.token.cancel();
        let mut running = std::mem::take(&mut *self.running.lock().expect("no panic while held"));
        let all = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!(left = running.len(), ?grace, "tasks did not end in time and are aborted");
            running.shutdown().await;
        }
    }

    /// Ends all tasks where they are, without asking them, and waits until they are gone.
    pub async fn abort(&self) {
        let mut running = std::mem::take(&mut *self.running.lock().expect("no panic while held"));
        running.shutdown().await;
    }
}

struct EndsOwnerOnPanic {
    name: &'static str,
    token: CancellationToken,
}

impl Drop for EndsOwnerOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.name, "a task panicked; shutting down its owner");
            self.token.cancel();
        }
    }
}

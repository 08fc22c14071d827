//! `MaintenanceService`: backups.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::generated::maintenance_service_server::MaintenanceService;
use super::stopping_error;
use crate::api::v1::{BackupRequest, BackupResponse};
use crate::error::Error;
use crate::store::{Backup, Store};

/// How many backups may be read at the same time: each holds the objects of its revision, however slowly it is read.
const MAX_BACKUPS: usize = 4;
/// When to ask again if there are so many.
const RETRY: Duration = Duration::from_secs(10);

/// The service.
#[derive(Debug)]
pub(super) struct Maintenance {
    store: Store,
    stopping: CancellationToken,
    places: Arc<Semaphore>,
}

impl Maintenance {
    pub(super) fn new(store: Store, stopping: CancellationToken) -> Self {
        Self { store, stopping, places: Arc::new(Semaphore::new(MAX_BACKUPS)) }
    }
}

#[tonic::async_trait]
impl MaintenanceService for Maintenance {
    type BackupStream = Pin<Box<dyn Stream<Item = Result<BackupResponse, Status>> + Send>>;

    async fn backup(&self, _: Request<BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Error::Exhausted { message: format!("{MAX_BACKUPS} backups are being read already"), retry_after: Some(RETRY) })?;
        let (backup, stopping) = (self.store.backup().await?, self.stopping.clone());
        tracing::info!(revision = %backup.state().revision(), "a backup begins");
        // Made when it is asked for: a reader that doesn't read costs the state, and no pieces.
        let pieces = stream::try_unfold(Some((backup, place)), move |reading| {
            let is_stopping = stopping.is_cancelled();
            async move {
                match reading {
                    Some(_) if is_stopping => Err(stopping_error().into()),
                    Some((backup, place)) => {
                        let (response, rest) = next(backup);
                        Ok(Some((response, rest.map(|backup| (backup, place)))))
                    }
                    None => Ok(None),
                }
            }
        });
        Ok(Response::new(Box::pin(pieces)))
    }
}

/// The next message; without a backup to go on with it was the last one.
fn next(mut backup: Backup) -> (BackupResponse, Option<Backup>) {
    let data = backup.next_piece();
    let is_last = data.is_none();
    let response = BackupResponse {
        data: data.unwrap_or_default(),
        revision: backup.state().revision().0,
        objects: backup.objects() as u64,
        total_objects: backup.state().len() as u64,
        bytes: backup.bytes() as u64,
        total_bytes: backup.state().bytes() as u64,
        checksum: is_last.then(|| backup.checksum()),
    };
    (response, (!is_last).then_some(backup))
}

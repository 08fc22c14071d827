//! `MaintenanceService`: backups.

use std::pin::Pin;

use futures_util::stream::{self, Stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::generated::maintenance_service_server::MaintenanceService;
use super::stopping_error;
use crate::api::v1::{BackupRequest, BackupResponse};
use crate::store::{Backup, Store};

/// The service.
#[derive(Debug)]
pub(super) struct Maintenance {
    pub(super) store: Store,
    pub(super) stopping: CancellationToken,
}

#[tonic::async_trait]
impl MaintenanceService for Maintenance {
    type BackupStream = Pin<Box<dyn Stream<Item = Result<BackupResponse, Status>> + Send>>;

    async fn backup(&self, _: Request<BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let (backup, stopping) = (self.store.backup().await?, self.stopping.clone());
        tracing::info!(revision = %backup.state().revision(), "a backup begins");
        // Made when it is asked for: a reader that doesn't read costs the state, and no pieces.
        let pieces = stream::try_unfold(Some(backup), move |backup| {
            let is_stopping = stopping.is_cancelled();
            async move {
                match backup {
                    Some(_) if is_stopping => Err(stopping_error().into()),
                    Some(backup) => Ok(Some(next(backup))),
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

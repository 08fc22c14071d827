//! A log that goes on where it was when its connection breaks.

use std::time::Duration;

use super::{Backoff, Client, Incoming};
use crate::api::v1::{LogsRequest, LogsResponse};
use crate::error::{Error, Result};

/// The longest wait before the first and before any new connection.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// A container's log, every line once: who follows it is led over broken connections, and over restarts of the kubelet and of apiservers.
#[derive(Debug)]
pub struct Log {
    client: Client,
    request: LogsRequest,
    incoming: Option<Incoming<LogsResponse>>,
    backoff: Backoff,
    delay: Duration,
}

/// What happens to a log.
#[derive(Debug)]
pub enum LogEvent {
    /// The next piece.
    Piece(LogsResponse),
    /// The connection broke. The log goes on when there is another one.
    Broken(Error),
}

impl Log {
    /// Asks for a log, which has to be named by the pod's uid and the container's name if it shall go on over broken connections.
    ///
    /// # Errors
    /// What `WorkloadService.Logs` documents.
    pub async fn open(client: Client, request: LogsRequest) -> Result<Self> {
        let incoming = Some(client.logs(request.clone()).await?);
        let backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        Ok(Self { client, request, incoming, backoff, delay: Duration::ZERO })
    }

    /// What happens next; `None` at the end of the log. To be called until then; it must not be dropped while it waits.
    ///
    /// # Errors
    /// What `WorkloadService.Logs` documents. A log that isn't followed ends when its connection breaks; one that is, when its pod is gone meanwhile.
    pub async fn next(&mut self) -> Result<Option<LogEvent>> {
        loop {
            let error = match &mut self.incoming {
                Some(incoming) => match incoming.next().await {
                    Ok(Some(piece)) => return Ok(Some(LogEvent::Piece(self.passed(piece)))),
                    Ok(None) => return Ok(None),
                    Err(error) => error,
                },
                None => {
                    tokio::time::sleep(self.delay).await;
                    match self.client.logs(self.request.clone()).await {
                        Ok(incoming) => {
                            self.incoming = Some(incoming);
                            continue;
                        }
                        Err(error) => error,
                    }
                }
            };
            if !self.request.follow || !is_passing(&error) {
                return Err(error);
            }
            self.delay = self.backoff.delay_after(&error);
            if self.incoming.take().is_some() {
                return Ok(Some(LogEvent::Broken(error)));
            }
        }
    }

    /// Takes note of where the log goes on after a piece.
    fn passed(&mut self, piece: LogsResponse) -> LogsResponse {
        self.backoff.reset();
        if piece.position.is_some() && !self.request.pod_uid.is_empty() && !self.request.container.is_empty() {
            self.request.after = piece.position;
        }
        piece
    }
}

/// Whether another connection may go on.
fn is_passing(error: &Error) -> bool {
    error.is_unavailable() || matches!(error, Error::Timeout(_) | Error::Cancelled | Error::Exhausted { retry_after: Some(_), .. })
}

//! `ControlPlaneService`: requests in, [`writes`](super::writes) decided and committed, stored bytes out.

mod apply;
mod list;
mod pages;
mod prune;

use futures_util::future::join_all;
use tonic::{Request, Response, Status};

use self::pages::Pages;
use super::Frame;
use super::generated::control_plane_service_server::ControlPlaneService;
use super::writer::{Answer, Writer, key_of, key_of_ref};
use crate::api::v1::{
    ApplyRequest, CreateRequest, DeleteRequest, GetRequest, ListRequest, Object, ObjectError, UpdateRequest, UpdateStatusRequest,
};
use crate::error::{Error, Result};

/// The most statuses in one request.
const MAX_STATUSES: usize = 1_000;

/// The service.
#[derive(Debug)]
pub(super) struct ControlPlane {
    writer: Writer,
    pages: Pages,
}

impl ControlPlane {
    pub(super) fn new(writer: Writer) -> Self {
        Self { writer, pages: Pages::default() }
    }

    /// Lets go of the snapshots of lists that nobody went on with, and of the history that is too old.
    pub(super) fn drop_old(&self) {
        self.pages.drop_old();
        self.writer.store.expire_history();
    }
}

#[tonic::async_trait]
impl ControlPlaneService for std::sync::Arc<ControlPlane> {
    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<Frame>, Status> {
        let CreateRequest { object, dry_run } = request.into_inner();
        Ok(object_response(self.writer.create(given(object)?, dry_run).await?))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Frame>, Status> {
        let key = key_of_ref(request.get_ref().r#ref.as_ref())?;
        let stored = self.writer.store.current().await?.get(&key).cloned().ok_or_else(|| Error::not_found(&key))?;
        Ok(object_response(Answer::Stored(stored)))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Frame>, Status> {
        let page = list::page(&self.writer.store, &self.pages, request.into_inner()).await?;
        Ok(Response::new(page))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<Frame>, Status> {
        let UpdateRequest { object, dry_run } = request.into_inner();
        Ok(object_response(self.writer.update(given(object)?, dry_run).await?))
    }

    async fn update_status(&self, request: Request<UpdateStatusRequest>) -> Result<Response<Frame>, Status> {
        let objects = request.into_inner().objects;
        if objects.len() > MAX_STATUSES {
            return Err(Error::invalid("objects", format!("{} statuses; at most {MAX_STATUSES} are taken", objects.len())).into());
        }
        // Each is its own transaction, since each may fail on its own; handed over at once they share a write to the disk.
        let mut seen = std::collections::HashSet::new();
        let statuses = objects.into_iter().map(|object| {
            let first = key_of(&object).is_ok_and(|key| seen.insert(key));
            async move {
                if !first {
                    // Malformed, or named before: there is no order between the statuses of one request.
                    key_of(&object)?;
                    return Err(Error::invalid("metadata.name", "the request has another status for this object already"));
                }
                self.writer.update_status(object).await
            }
        });
        let mut response = Frame::new();
        for result in join_all(statuses).await {
            response.push_frame(1, status_result(result));
        }
        Ok(Response::new(response))
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<Frame>, Status> {
        Ok(Response::new(apply::apply(&self.writer, request.into_inner()).await?))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<Frame>, Status> {
        Ok(object_response(self.writer.delete(request.get_ref()).await?))
    }
}

/// Whether a text is a token that a list can continue with.
pub(super) fn is_continue_token(text: &str) -> bool {
    pages::Token::decode(text).is_ok()
}

fn given(object: Option<Object>) -> Result<Object> {
    object.ok_or_else(|| Error::invalid("object", "must be set"))
}

/// Create, Get, Update and Delete all answer with one object in field 1.
fn object_response(answer: Answer) -> Response<Frame> {
    let mut response = Frame::new();
    response.push_message(1, answer.into_bytes());
    Response::new(response)
}

fn status_result(result: Result<Answer>) -> Frame {
    let mut frame = Frame::new();
    match result {
        Ok(answer) => frame.push_message(1, answer.into_bytes()),
        Err(error) => frame.push_message(2, prost::Message::encode_to_vec(&ObjectError::from(error)).into()),
    }
    frame
}

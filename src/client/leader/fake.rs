//! An apiserver that keeps one lease, behind a network for each candidate.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::api::v1::{CreateRequest, CreateResponse, GetRequest, GetResponse, Lease, Object, UpdateRequest, UpdateResponse};
use crate::api::{Resource as _, Revision};
use crate::client::Client;
use crate::client::fake::serve;
use crate::error::{Error, Result};
use crate::tasks::Tasks;

/// The lease, if there is one, with its versions.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    lease: Option<Lease>,
    version: u64,
}

impl Table {
    pub(super) fn get(&self) -> Option<Lease> {
        self.lease.clone()
    }

    /// Stores it on the condition that the present one has its version; none if that is zero.
    pub(super) fn put(&mut self, mut lease: Lease) -> Result<Lease> {
        let current = self.lease.as_ref().map_or(0, |lease| lease.meta().resource_version);
        let expected = lease.meta().resource_version;
        if expected != current {
            return Err(match expected {
                0 => Error::AlreadyExists(lease.key().to_ref()),
                _ => Error::Conflict { object: lease.key().to_ref(), expected: Revision(expected), actual: Revision(current) },
            });
        }
        self.version += 1;
        lease.meta_mut().resource_version = self.version;
        self.lease = Some(lease.clone());
        Ok(lease)
    }
}

/// What becomes of a candidate's requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Network(Arc<AtomicU8>);

const GOOD: u8 = 0;
const CUT: u8 = 1;
const LOSES_ANSWERS: u8 = 2;
const REFUSES: u8 = 3;
/// When a network that refuses says that it is of use to come back.
pub(super) const COME_BACK: Duration = Duration::from_secs(5);

impl Network {
    /// Requests never arrive, and nobody learns of that.
    pub(super) fn cut(&self) {
        self.0.store(CUT, Ordering::Relaxed);
    }

    /// Requests are done, and fail.
    pub(super) fn lose_answers(&self) {
        self.0.store(LOSES_ANSWERS, Ordering::Relaxed);
    }

    /// Requests are answered with when to come back.
    pub(super) fn refuse(&self) {
        self.0.store(REFUSES, Ordering::Relaxed);
    }

    pub(super) fn repair(&self) {
        self.0.store(GOOD, Ordering::Relaxed);
    }
}

/// Serves a table.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeLease {
    table: Arc<Mutex<Table>>,
    network: Network,
    refused: Arc<AtomicUsize>,
}

impl FakeLease {
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no panic while held")
    }

    /// How many requests were refused.
    pub(super) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn client(&self, network: &Network, tasks: &Tasks) -> Client {
        let served = Self { network: network.clone(), ..self.clone() };
        let (channel, serving) = serve(move |request| served.clone().call(request));
        // It outlives the candidates, which give their leases back when the token is cancelled.
        tasks.spawn("fake server", serving);
        Client::from_channel(channel)
    }

    async fn call(self, request: axum::extract::Request) -> http::Response<Body> {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        match method.as_str() {
            "Get" => Grpc::new(ProstCodec::default()).unary(tower::service_fn(|it| self.clone().get(it)), request).await,
            "Create" => Grpc::new(ProstCodec::default()).unary(tower::service_fn(|it| self.clone().create(it)), request).await,
            "Update" => Grpc::new(ProstCodec::default()).unary(tower::service_fn(|it| self.clone().update(it)), request).await,
            other => panic!("{other} is not served here"),
        }
    }

    async fn answer<T>(&self, act: impl FnOnce(&mut Table) -> Result<T>) -> Result<Response<T>, Status> {
        match self.network.0.load(Ordering::Relaxed) {
            CUT => std::future::pending().await,
            REFUSES => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(Error::Exhausted { message: "too often".into(), retry_after: Some(COME_BACK) }.into())
            }
            network => {
                let answer = act(&mut self.table());
                match network {
                    LOSES_ANSWERS => Err(Error::Unavailable("the answer is lost".into()).into()),
                    _ => Ok(Response::new(answer?)),
                }
            }
        }
    }

    async fn get(self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let reference = request.into_inner().r#ref.unwrap_or_default();
        let missing = || Error::NotFound(reference);
        self.answer(|table| Ok(GetResponse { object: Some(table.get().ok_or_else(missing)?.into_object()) })).await
    }

    async fn create(self, request: Request<CreateRequest>) -> Result<Response<CreateResponse>, Status> {
        let object = request.into_inner().object;
        self.answer(|table| Ok(CreateResponse { object: Some(table.put(lease(object))?.into_object()) })).await
    }

    async fn update(self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        let object = request.into_inner().object;
        self.answer(|table| Ok(UpdateResponse { object: Some(table.put(lease(object))?.into_object()) })).await
    }
}

fn lease(object: Option<Object>) -> Lease {
    object.and_then(Lease::from_object).expect("a lease")
}

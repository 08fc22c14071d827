//! Counters and durations of requests, for `/metrics`.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use prost::Message as _;
use tonic::Code;

/// Upper bounds in seconds: from a read in memory to a write on a slow disk.
const BUCKETS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// The process has one recorder, whatever the number of apiservers in it; `None` when somebody else had installed one before.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

fn recorder() -> Option<&'static PrometheusHandle> {
    let install = || {
        let recorder = PrometheusBuilder::new().set_buckets(&BUCKETS).ok()?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        describe_counter!("bluebird_rpcs_total", "Answered requests by method and gRPC code; a stream counts when it begins.");
        describe_histogram!("bluebird_rpc_seconds", metrics::Unit::Seconds, "Time until a request was answered; a stream, until it began.");
        describe_counter!("bluebird_client_refusals_total", "Requests and watches that were refused because their client has a limit.");
        Some(handle)
    };
    RECORDER.get_or_init(install).as_ref()
}

/// Takes in what has been measured since the last time; without it the samples of histograms pile up.
pub(super) fn upkeep() {
    if let Some(recorder) = recorder() {
        recorder.run_upkeep();
    }
}

/// Everything measured in this process, as Prometheus reads it.
pub(super) async fn render() -> axum::response::Response {
    match recorder() {
        Some(recorder) => ([("content-type", "text/plain; version=0.0.4")], recorder.render()).into_response(),
        None => (StatusCode::NOT_FOUND, "the program that embeds this apiserver records metrics itself\n").into_response(),
    }
}

/// What is measured of each method.
#[derive(Debug)]
pub(super) struct RpcMetrics(HashMap<String, Method>);

struct Method {
    name: String,
    seconds: Histogram,
    /// By far the most frequent; other codes are looked up when they happen.
    ok: Counter,
}

impl std::fmt::Debug for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl RpcMetrics {
    /// For every method of our own services.
    pub(super) fn new() -> Self {
        recorder();
        let descriptors = prost_types::FileDescriptorSet::decode(crate::api::FILE_DESCRIPTOR_SET).unwrap_or_default();
        let ours = descriptors.file.iter().filter(|file| file.package() == "bluebird.v1");
        let methods = ours.flat_map(|file| &file.service).flat_map(|service| {
            service.method.iter().map(|method| {
                let path = format!("/bluebird.v1.{}/{}", service.name(), method.name());
                let name = format!("{}/{}", service.name(), method.name());
                let seconds = histogram!("bluebird_rpc_seconds", "method" => name.clone());
                let ok = counter!("bluebird_rpcs_total", "method" => name.clone(), "code" => "Ok");
                (path, Method { name, seconds, ok })
            })
        });
        Self(methods.collect())
    }

    /// A request for this path was answered with these headers. What failed says so there; a stream that fails later doesn't.
    pub(super) fn answered(&self, path: &str, headers: &HeaderMap, after: Duration) {
        let Some(method) = self.0.get(path) else { return };
        method.seconds.record(after.as_secs_f64());
        match headers.get("grpc-status").map(|status| Code::from_bytes(status.as_bytes())) {
            None | Some(Code::Ok) => method.ok.increment(1),
            Some(code) => counter!("bluebird_rpcs_total", "method" => method.name.clone(), "code" => format!("{code:?}")).increment(1),
        }
    }
}

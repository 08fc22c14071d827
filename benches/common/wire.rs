//! gRPC with bytes: what goes out is encoded once, what comes in is not decoded but skipped through.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio_stream::StreamExt as _;
use tonic::client::Grpc;
use tonic::codec::Streaming;
use tonic::codegen::http;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::raw::RawCodec;

/// How many connections the load is spread over.
pub const CONNECTIONS: usize = 16;

/// As many connections as make sense for so many users of them.
pub async fn connect(url: &str, users: usize) -> anyhow::Result<Vec<Channel>> {
    let mut channels = Vec::new();
    for _ in 0..users.clamp(1, CONNECTIONS) {
        let endpoint = Endpoint::from_shared(url.to_owned())?
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(10))
            .initial_connection_window_size(16 * 1024 * 1024)
            .initial_stream_window_size(1024 * 1024);
        channels.push(endpoint.connect().await.with_context(|| format!("connecting to {url}"))?);
    }
    Ok(channels)
}

/// One method of a server over one connection.
#[derive(Clone)]
pub struct Method {
    grpc: Grpc<Channel>,
    path: PathAndQuery,
}

impl Method {
    /// The method at `/package.Service/Method`.
    pub fn new(channel: &Channel, path: &'static str) -> Self {
        let grpc = Grpc::new(channel.clone()).max_decoding_message_size(64 * 1024 * 1024);
        Self { grpc, path: PathAndQuery::from_static(path) }
    }

    /// One message there, one back.
    pub async fn call(&mut self, message: Bytes) -> Result<Bytes, Status> {
        self.ready().await?;
        Ok(self.grpc.unary(Request::new(message), self.path.clone(), RawCodec).await?.into_inner())
    }

    /// One message there, many back.
    pub async fn open(&mut self, message: Bytes) -> Result<Streaming<Bytes>, Status> {
        self.ready().await?;
        Ok(self.grpc.server_streaming(Request::new(message), self.path.clone(), RawCodec).await?.into_inner())
    }

    /// One message there on a stream that stays open for more, many back.
    pub async fn open_both(&mut self, message: Bytes) -> Result<Streaming<Bytes>, Status> {
        self.ready().await?;
        let messages = tokio_stream::iter([message]).chain(tokio_stream::pending());
        Ok(self.grpc.streaming(Request::new(messages), self.path.clone(), RawCodec).await?.into_inner())
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))
    }
}

/// One field of an encoded message.
pub enum Value<'a> {
    Number(u64),
    Message(&'a [u8]),
}

/// Walks over the fields of an encoded message; ends at the first byte that it doesn't understand.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                let (message, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                Value::Message(message)
            }
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl Fields<'_> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// The first field of this number, if it is a message, text or bytes.
pub fn message_field(message: &[u8], number: u64) -> Option<&[u8]> {
    Fields(message).find_map(|(found, value)| match value {
        Value::Message(bytes) if found == number => Some(bytes),
        _ => None,
    })
}

use std::time::Duration;

use tonic::codegen::http::Uri;
use tonic::transport::Endpoint;

use crate::error::{Error, Result};

/// What one connection may have in flight to us, in bytes. HTTP/2's 64 KiB would make the receiver the bottleneck of a busy watch.
pub(super) const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// What one stream may have in flight to us, in bytes: the largest revision at least, and all of what a server sends ahead.
pub(super) const STREAM_WINDOW: u32 = 4 * 1024 * 1024;

/// How long a client waits for a server that may be dead, or behind a network that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long a connection may take to be made. Default: 5 s.
    pub connect: Duration,
    /// How often a connection is checked, also while nothing is asked. Default: 10 s.
    pub keepalive_interval: Duration,
    /// How long the answer to such a check may take; then the connection is given up, and everything on it has failed. Default: 5 s.
    pub keepalive_timeout: Duration,
    /// How long a watch may be silent, however alive its connection looks: two and a half of the server's bookmarks. Default: 25 s.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            silence: Duration::from_secs(25),
        }
    }
}

const APART_WINDOW: u32 = 256 * 1024;

/// Reads the address of a server: `http://host:port`, `host:port` or `unix:/path`.
///
/// # Errors
/// [`Error::Invalid`] for anything else.
pub(super) fn endpoint(server: &str, patience: Patience) -> Result<Endpoint> {
    let endpoint = match server.strip_prefix("unix:") {
        Some("" | "//") => return Err(wrong(server, "the path of the socket is missing")),
        Some(_) => Endpoint::from_shared(server.to_owned()).map_err(|_| wrong(server, "not a path"))?,
        None => Endpoint::from(http_uri(server)?),
    };
    Ok(endpoint
        .connect_timeout(patience.connect)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(patience.keepalive_interval)
        .keep_alive_timeout(patience.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW))
}

/// For a connection that carries one stream which may stand still: what is taken in before it is read stays small.
pub(super) fn apart(endpoint: Endpoint) -> Endpoint {
    endpoint.initial_connection_window_size(APART_WINDOW).initial_stream_window_size(APART_WINDOW)
}

fn http_uri(server: &str) -> Result<Uri> {
    let with_scheme = match server.split_once("://") {
        Some(("http", _)) => server.to_owned(),
        Some(("https", _)) => return Err(wrong(server, "TLS is not supported yet")),
        Some((scheme, _)) => return Err(wrong(server, &format!("there is no transport {scheme:?}"))),
        None => format!("http://{server}"),
    };
    let uri: Uri = with_scheme.parse().map_err(|error| wrong(server, &format!("{error}")))?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(wrong(server, "the host is missing"));
    }
    if uri.port_u16().is_none_or(|port| port == 0) {
        return Err(wrong(server, "the port is missing"));
    }
    if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
        return Err(wrong(server, "nothing may follow the port"));
    }
    Ok(uri)
}

fn wrong(server: &str, why: &str) -> Error {
    Error::invalid("server", format!("{server:?} is no server address: {why}; write http://HOST:PORT or unix:/PATH"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(server: &str, expected: Result<&str, &str>) {
        match (endpoint(server, Patience::default()), expected) {
            (Ok(endpoint), Ok(uri)) => assert_eq!(endpoint.uri().to_string(), uri, "{server}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{server}: {error}"),
            (found, expected) => panic!("{server}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn a_server_is_a_url_a_host_with_a_port_or_a_socket() {
        check("http://127.0.0.1:7443", Ok("http://127.0.0.1:7443/"));
        check("localhost:7443", Ok("http://localhost:7443/"));
        check("[::1]:7443", Ok("http://[::1]:7443/"));
        // The path of a socket is no URI: tonic shows a placeholder.
        check("unix:/run/bluebird.sock", Ok("http://tonic/"));
        check("unix:///run/bluebird.sock", Ok("http://tonic/"));
    }

    #[test]
    fn a_dead_network_is_noticed_within_25_seconds_and_no_window_holds_up_a_busy_watch() {
        let Patience { connect, keepalive_interval, keepalive_timeout, silence } = Patience::default();
        let bound = Duration::from_secs(25);
        assert!(keepalive_interval + keepalive_timeout <= bound && silence <= bound && connect < bound);
        assert!(silence > Duration::from_secs(2 * 10), "one bookmark may be late");
        const { assert!(CONNECTION_WINDOW >= STREAM_WINDOW && STREAM_WINDOW >= 4 * 1024 * 1024) };
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        check("", Err("is no server address"));
        check("localhost", Err("the port is missing"));
        check("http://localhost", Err("the port is missing"));
        check("http://:7443", Err("is no server address"));
        check("localhost:0", Err("the port is missing"));
        check("https://localhost:7443", Err("TLS is not supported yet"));
        check("ftp://localhost:7443", Err("no transport \"ftp\""));
        check("http://localhost:7443/api", Err("nothing may follow the port"));
        check("unix:", Err("path of the socket is missing"));
        check("two words:1", Err("is no server address"));
    }
}

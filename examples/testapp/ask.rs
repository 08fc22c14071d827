//! Asks servers, patiently: what is not there yet may come.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::{Duration, Instant};

use crate::{Result, say, told};

/// How long an answer may take to come at all.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Says what a server answers to GET: the status and the text.
pub(crate) fn get(url: &str) -> Result {
    let rest = url.strip_prefix("http://").ok_or("only http:// is known")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let answer = until_answered(|| {
        let request = format!("GET /{path} HTTP/1.0\r\nHost: {authority}\r\nX-Asked-By: testapp\r\n\r\n");
        // A server of HTTP may take the end of what comes for the end of whoever asks.
        exchange(address(authority)?, request.as_bytes(), false)
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no answer of HTTP: {answer:?}"))?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    say::line(&format!("{status} {}", body.trim_end()))
}

pub(crate) fn tcp(to: &str, text: &str) -> Result {
    say::line(&until_answered(|| exchange(address(to)?, text.as_bytes(), true))?)
}

pub(crate) fn udp(to: &str, text: &str) -> Result {
    let answer = until_answered(|| {
        let socket = told(UdpSocket::bind("127.0.0.1:0"), "a port")?;
        told(socket.set_read_timeout(Some(ATTEMPT)), "a port")?;
        told(socket.send_to(text.as_bytes(), to), to)?;
        let mut answer = [0; 1500];
        let (length, _) = told(socket.recv_from(&mut answer), to)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    })?;
    say::line(&answer)
}

/// Somebody takes connections there.
pub(crate) fn accepted(at: &str) -> Result {
    told(TcpStream::connect_timeout(&address(at)?, ATTEMPT), at).map(drop)
}

/// Nobody takes connections there, or soon nobody does.
pub(crate) fn refused(at: &str) -> Result {
    let (address, deadline) = (address(at)?, Instant::now() + PATIENCE);
    while TcpStream::connect_timeout(&address, ATTEMPT).is_ok() {
        if Instant::now() > deadline {
            return Err(format!("somebody takes connections at {at}"));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// Sends everything, and says what comes back until the other side ends. An empty answer is none: a router whose service has no pods gives it.
fn exchange(to: SocketAddr, request: &[u8], tells_end: bool) -> Result<String> {
    let mut stream = told(TcpStream::connect_timeout(&to, ATTEMPT), to)?;
    told(stream.set_read_timeout(Some(ATTEMPT)), to)?;
    told(stream.write_all(request), to)?;
    if tells_end {
        told(stream.shutdown(Shutdown::Write), to)?;
    }
    let mut answer = Vec::new();
    told(stream.read_to_end(&mut answer), to)?;
    if answer.is_empty() { Err(format!("{to} answered nothing")) } else { Ok(String::from_utf8_lossy(&answer).into_owned()) }
}

fn until_answered(mut ask: impl FnMut() -> Result<String>) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(LOOK_AGAIN),
            answer => return answer,
        }
    }
}

fn address(text: &str) -> Result<SocketAddr> {
    told(text.to_socket_addrs(), text)?.next().ok_or_else(|| format!("{text:?} is no address"))
}

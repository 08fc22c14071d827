//! One request by HTTP/1.1, in a process of its own, so that a server that hangs holds nobody up. It says why it failed on its standard output.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::files::{HttpGet, Run};
use super::{CONTAINER_VARIABLE, POD_VARIABLE, ROOT_VARIABLE};
use crate::kubelet::os::{Host, Os};

/// The first argument of such a process: `http-get HOST PORT PATH` follow.
pub(crate) const ROLE: &str = "http-get";
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How much of an answer is looked at: more than any head should have.
const MAX_HEAD: u64 = 64 * 1024;

/// Starts a request beside the main process of a run; gives its pid. It lives until it has an answer: whoever starts it ends it.
pub(super) fn start(get: &HttpGet, run: &Run, stdout: Stdio) -> io::Result<i32> {
    let mut command = Command::new(Host::own_program()?);
    command.args([ROLE, &get.host, &get.port.to_string(), &get.path]);
    // By these it is found, with all that is the container's.
    command.envs(run.env.iter().filter(|(name, _)| [ROOT_VARIABLE, POD_VARIABLE, CONTAINER_VARIABLE].contains(&name.as_str())).cloned());
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
    // Neither the container's user nor its limits: it is ours.
    Host::spawn(&mut command, &Run { container: run.container.clone(), ..Run::default() })
}

/// Makes the request of these arguments, and ends: with 0 if the answer is as it should be.
pub(crate) fn main(arguments: &[String]) -> ! {
    let outcome = match arguments {
        [host, port, path] => match port.parse() {
            Ok(port) => ask(&HttpGet { host: host.clone(), port, path: path.clone() }),
            Err(_) => Err(format!("{port:?} is no port")),
        },
        _ => Err(format!("usage: {ROLE} HOST PORT PATH")),
    };
    if let Err(why) = &outcome {
        // Nobody listens any more when this fails.
        let _gone = writeln!(io::stdout(), "{why}");
    }
    std::process::exit(i32::from(outcome.is_err()))
}

fn ask(get: &HttpGet) -> Result<(), String> {
    let at = match get.host.contains(':') {
        true => format!("[{}]:{}", get.host, get.port),
        false => format!("{}:{}", get.host, get.port),
    };
    let told = |error: io::Error| format!("{at}: {error}");
    let mut stream = connect(get).map_err(told)?;
    let agent = concat!("bluebird-kubelet/", env!("CARGO_PKG_VERSION"));
    let path = &get.path;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(told)?;
    match status(BufReader::new(stream.take(MAX_HEAD))).map_err(told)? {
        200..=399 => Ok(()),
        status => Err(format!("{at}: HTTP status {status}")),
    }
}

fn connect(get: &HttpGet) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (get.host.as_str(), get.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            // A connection to a port of the machine's own that nobody listens on may come to meet itself.
            Ok(stream) if stream.local_addr()? == stream.peer_addr()? => last = io::ErrorKind::ConnectionRefused.into(),
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The status of an answer. Those that only say that there will be one are passed over.
fn status(mut answer: impl BufRead) -> io::Result<u16> {
    loop {
        let line = line(&mut answer)?;
        let words: Vec<&str> = line.split(' ').collect();
        let status = match words[..] {
            [version, status, ..] if version.starts_with("HTTP/1.") && status.len() == 3 => status.parse::<u16>().ok(),
            _ => None,
        };
        match status {
            Some(100..=199) => while !self::line(&mut answer)?.is_empty() {},
            Some(status) => return Ok(status),
            None => return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP")),
        }
    }
}

/// The next line without its end.
fn line(answer: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    answer.read_until(b'\n', &mut line)?;
    match line.pop() {
        Some(b'\n') => Ok(String::from_utf8_lossy(&line).trim_end().to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no whole answer came")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What comes of asking a server that gives this answer and then closes; with what it was asked.
    fn asked(answer: &'static str) -> (Result<(), String>, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            let mut lines = BufReader::new(&stream);
            while !request.ends_with("\r\n\r\n") {
                lines.read_line(&mut request).unwrap();
            }
            (&stream).write_all(answer.as_bytes()).unwrap();
            request
        });
        let outcome = ask(&HttpGet { host: "127.0.0.1".into(), port, path: "/stop?now".into() });
        (outcome.map_err(|why| why.replace(&format!("127.0.0.1:{port}: "), "")), server.join().unwrap())
    }

    #[test]
    fn a_status_from_200_to_399_is_an_answer_as_it_should_be() {
        let (outcome, request) = asked("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(outcome, Ok(()));
        assert!(request.starts_with("GET /stop?now HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
        assert_eq!(asked("HTTP/1.0 399\r\n").0, Ok(()));
        assert_eq!(asked("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n").0, Ok(()));
        assert_eq!(asked("HTTP/1.1 400 Bad Request\r\n\r\n").0, Err("HTTP status 400".into()));
        assert_eq!(asked("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 Later\r\n").0, Err("HTTP status 503".into()));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for nonsense in ["SSH-2.0-x\r\n", "HTTP/2 200\r\n", "HTTP/1.1 20 Short\r\n", "\r\n"] {
            assert_eq!(asked(nonsense).0, Err("the answer is not HTTP".into()), "{nonsense:?}");
        }
        for cut in ["", "HTTP/1.1 200 OK", "HTTP/1.1 100 Continue\r\n"] {
            assert_eq!(asked(cut).0, Err("no whole answer came".into()), "{cut:?}");
        }
        let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let refused = ask(&HttpGet { host: "127.0.0.1".into(), port: free, path: "/".into() }).unwrap_err();
        assert!(refused.contains("refused"), "{refused}");
    }
}

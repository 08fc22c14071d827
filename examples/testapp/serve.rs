//! Servers, which go on while the next steps are done. They say who answers.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use tonic_health::ServingStatus;

use crate::{Result, files, say, told};

/// What is asked for by `/health`, and changed by `/healthy` and `/unhealthy`.
static IS_HEALTHY: AtomicBool = AtomicBool::new(true);

/// Between the answer to `/exit` and the end.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The name that it answers with.
fn name() -> String {
    std::env::var("NAME").unwrap_or_else(|_| "testapp".to_owned())
}

/// `/` answers with its name, `/headers` with what was asked, `/env/NAME` with a variable, `/health` with 200 or 503; `/healthy`, `/unhealthy`,
/// `/exit/CODE` and `/print/TEXT` make it do so; `/hang` never answers.
pub(crate) fn http(port: u16) -> Result {
    let listener = listen(port)?;
    told(listener.set_nonblocking(true), "a port")?;
    in_background(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(listener, Router::new().fallback(respond)).await
    })
}

async fn respond(request: Request) -> (StatusCode, String) {
    if request.uri().path() == "/hang" {
        std::future::pending::<()>().await;
    }
    answer(&request)
}

fn answer(request: &Request) -> (StatusCode, String) {
    let path = request.uri().path();
    let (step, argument) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let status = match step {
        "health" if !IS_HEALTHY.load(Ordering::Relaxed) => return (StatusCode::SERVICE_UNAVAILABLE, "unhealthy\n".to_owned()),
        "" | "health" | "headers" => StatusCode::OK,
        "env" => return (StatusCode::OK, std::env::var(argument).unwrap_or_default() + "\n"),
        "healthy" | "unhealthy" => {
            IS_HEALTHY.store(step == "healthy", Ordering::Relaxed);
            StatusCode::OK
        }
        "exit" => {
            let code = argument.parse().unwrap_or(1);
            std::thread::spawn(move || {
                // Whoever asked for it gets an answer before.
                std::thread::sleep(LAST_WORDS);
                files::end(code)
            });
            StatusCode::OK
        }
        "print" if say::line(argument).is_ok() => StatusCode::OK,
        _ => StatusCode::NOT_FOUND,
    };
    let headers = request.headers().iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap_or("?")));
    let headers: String = if step == "headers" { headers.collect() } else { String::new() };
    (status, format!("{} {} {}\n{headers}", name(), request.method(), request.uri()))
}

/// Answers each connection with its name and what was sent.
pub(crate) fn tcp(port: u16) -> Result {
    let listener = listen(port)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || drop(echo(stream)));
        }
    });
    Ok(())
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    stream.write_all(format!("{} {}", name(), String::from_utf8_lossy(&text)).as_bytes())
}

/// Answers each datagram with its name and what was sent.
pub(crate) fn udp(port: u16) -> Result {
    let socket = told(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)), "the port")?;
    std::thread::spawn(move || {
        let mut text = [0; 1400];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut text) else { continue };
            let answer = format!("{} {}", name(), String::from_utf8_lossy(&text[..length]));
            drop(socket.send_to(answer.as_bytes(), from));
        }
    });
    Ok(())
}

/// The health service of gRPC: for `ready` serving, for `unready` not.
pub(crate) fn grpc(port: u16) -> Result {
    let listener = listen(port)?;
    told(listener.set_nonblocking(true), "a port")?;
    in_background(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (reporter, service) = tonic_health::server::health_reporter();
        reporter.set_service_status("ready", ServingStatus::Serving).await;
        reporter.set_service_status("unready", ServingStatus::NotServing).await;
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let served = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
        served.await.map_err(std::io::Error::other)
    })
}

fn listen(port: u16) -> Result<TcpListener> {
    told(TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))), "the port")
}

/// A server that breaks ends the program: nobody shall wait for it in vain.
fn in_background(serve: impl Future<Output = std::io::Result<()>> + Send + 'static) -> Result {
    let runtime = told(tokio::runtime::Builder::new_current_thread().enable_all().build(), "a runtime")?;
    std::thread::spawn(move || {
        if let Err(error) = runtime.block_on(serve) {
            eprintln!("testapp: can't serve: {error}");
            std::process::exit(70);
        }
    });
    Ok(())
}

//! A server for examples that says who answered.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use tokio::net::TcpListener;

use super::Console;
use super::args;
use super::failure::{Failure, Result};

/// How long open connections may take to end once the server was asked to stop.
const DRAIN: Duration = Duration::from_secs(5);

pub(super) async fn run(console: &mut Console<'_>, args: args::Echo) -> Result<()> {
    let listener = TcpListener::bind((args.host, args.port))
        .await
        .map_err(|error| Failure::Failed(format!("cannot listen on {}:{}: {error}", args.host, args.port)))?;
    let address = listener.local_addr().map_err(|error| Failure::Failed(format!("has no address: {error}")))?;
    let name = args.name;
    writeln!(console.io.out, "{name} listens on http://{address}/")?;
    console.io.out.flush()?;

    let (asked, mut was_asked) = tokio::sync::watch::channel(false);
    let asked_to_end = (console.io.asked_to_end)();
    let stop = async move {
        if let Err(error) = asked_to_end.await {
            // Then the server runs until it is killed.
            tracing::warn!(%error, "signals can't be watched");
            std::future::pending::<()>().await;
        }
        asked.send_replace(true);
    };
    let served = name.clone();
    let router = Router::new().fallback(move |request: Request| std::future::ready(answer(&served, address, &request)));
    let serve = axum::serve(listener, router).with_graceful_shutdown(stop);
    let overdue = async {
        // The sender is dropped only after it has sent.
        let _ = was_asked.wait_for(|asked| *asked).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = serve => served.map_err(|error| Failure::Failed(format!("cannot serve: {error}")))?,
        () = overdue => {}
    }
    writeln!(console.io.out, "{name} stops")?;
    Ok(())
}

fn answer(name: &str, address: SocketAddr, request: &Request) -> String {
    format!("Hello from {name} ({address}, pid {}): {} {}\n", std::process::id(), request.method(), request.uri())
}

//! A server for examples that says who answered.

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
    let name = args.name.unwrap_or_else(hostname);
    writeln!(console.io.out, "{name} listens on http://{address}/")?;
    console.io.out.flush()?;

    let (asked, mut was_asked) = tokio::sync::watch::channel(false);
    let stop = async move {
        super::signals::stop_requested().await;
        asked.send_replace(true);
    };
    let served = name.clone();
    let router = Router::new().fallback(move |request: Request| std::future::ready(answer(&served, &request)));
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

fn answer(name: &str, request: &Request) -> String {
    format!("Hello from {name} (pid {} on {}): {} {}\n", std::process::id(), hostname(), request.method(), request.uri())
}

/// The machine's own name.
fn hostname() -> String {
    #[cfg(unix)]
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").ok();
    name.unwrap_or_else(|| "unknown".to_owned())
}

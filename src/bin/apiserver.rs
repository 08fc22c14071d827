//! `apiserver`.

use std::process::ExitCode;

use bluebird::apiserver::{self, Args};
use bluebird::time::Clock;
use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    bluebird::telemetry::init("info");
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("apiserver: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let config = args.into_config().map_err(anyhow::Error::msg)?;
    let apiserver = apiserver::start(config, Clock::system()).await?;
    tracing::info!(url = apiserver.url(), "listening");
    tokio::signal::ctrl_c().await?;
    apiserver.shutdown().await;
    Ok(())
}

//! `kubelet`: makes one machine match the desired state. Run as `kubelet shim FOLDER` it guards one pod.

use std::process::ExitCode;

use bluebird::client::Client;
use bluebird::time::Clock;
use bluebird::{arguments, kubelet, telemetry};

fn main() -> ExitCode {
    kubelet::play_role(std::env::args_os());
    telemetry::init("info");
    match begin(arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kubelet: {error}");
            ExitCode::FAILURE
        }
    }
}

fn begin(arguments: kubelet::Arguments) -> anyhow::Result<()> {
    let config = arguments.config()?;
    let log = config.root_dir.join("kubelet.log");
    kubelet::supervised(&log, move || kubelet::complete(run(arguments.server, config)))
}

async fn run(server: String, config: kubelet::Config) -> anyhow::Result<()> {
    let client = Client::new(&server)?;
    let (name, root) = (config.node_name.clone(), config.root_dir.display().to_string());
    let kubelet = kubelet::start(config, client, Clock::system()).await?;
    tracing::info!(node = name, root, server, "kubelet started");
    tokio::select! {
        signal = kubelet::asked_to_end() => {
            let signal = signal?;
            kubelet.shutdown().await;
            tracing::info!(signal, "kubelet ended; its pods keep running, and the next kubelet on {root} takes them over");
            Ok(())
        }
        refusal = kubelet.refused() => {
            kubelet.shutdown().await;
            Err(anyhow::anyhow!("{refusal}"))
        }
    }
}

//! `kubelet`: makes one machine match the desired state. Run as `kubelet shim FOLDER` it guards one pod.

use std::process::ExitCode;

use bluebird::client::Client;
use bluebird::time::Clock;
use bluebird::{arguments, kubelet, telemetry};

fn main() -> ExitCode {
    kubelet::play_role(std::env::args_os());
    telemetry::init("info");
    let ended = tokio::runtime::Runtime::new().map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(arguments::parse())));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kubelet: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: kubelet::Arguments) -> anyhow::Result<()> {
    let client = Client::new(&arguments.server)?;
    let config = arguments.config()?;
    let (name, root) = (config.node_name.clone(), config.root_dir.display().to_string());
    let kubelet = kubelet::start(config, client, Clock::system()).await?;
    tracing::info!(node = name, root, server = arguments.server, "kubelet started");
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

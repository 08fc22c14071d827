//! `apiserver`: the control plane alone, for the kubelets of other processes and machines.

use std::process::ExitCode;

use bluebird::apiserver::{self, Args, Command};
use bluebird::arguments;
use bluebird::cluster::ControlPlane;
use bluebird::time::Clock;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Args = arguments::parse();
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
    let command = args.command.clone();
    let config = args.into_config().map_err(anyhow::Error::msg)?;
    if let Some(Command::Restore { backup }) = command {
        anyhow::ensure!(config.etcd.is_none(), "a backup is restored to a folder; leave out --store");
        let restored = apiserver::restore(&backup, &config.data_dir)?;
        let (objects, folder) = (restored.objects, config.data_dir.display());
        println!("{objects} objects of revision {} are in {folder}; the cluster goes on from revision {}", restored.backup, restored.now);
        return Ok(());
    }
    let control_plane = ControlPlane::start(config, Clock::system()).await?;
    tracing::info!(url = control_plane.url(), "listening");
    let outcome = tokio::select! {
        signal = bluebird::kubelet::asked_to_end() => {
            tracing::info!(signal = signal?, "shutting down");
            Ok(())
        }
        // Whoever supervises it has to see that.
        why = control_plane.lost_its_store() => Err(anyhow::anyhow!("the store has ended: {why}")),
    };
    control_plane.shutdown().await;
    outcome
}

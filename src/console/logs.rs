use super::Console;
use super::args;
use super::failure::{Failure, Result};
use crate::api::v1::LogsRequest;

pub(super) async fn run(console: &mut Console<'_>, args: &args::Logs) -> Result<()> {
    let pod = match args.pod.split_once('/') {
        None => args.pod.as_str(),
        Some(("pod" | "pods" | "po", name)) => name,
        Some((kind, _)) => return Err(Failure::Usage(format!("{kind:?} has no logs; name a pod"))),
    };
    let request = LogsRequest {
        namespace: console.namespace().to_owned(),
        pod: pod.to_owned(),
        container: args.container.clone().unwrap_or_default(),
        follow: args.follow,
        previous: args.previous,
        tail_lines: args.tail,
        ..Default::default()
    };
    let mut log = console.client()?.logs(request).await?;
    while let Some(piece) = log.next().await? {
        console.io.out.write_all(&piece.data)?;
        console.io.out.flush()?;
    }
    Ok(())
}

use super::Console;
use super::failure::Result;
use crate::api::Kind;
use crate::api::v1::{ListRequest, Node, Selector};

pub(super) async fn run(console: &mut Console<'_>) -> Result<()> {
    writeln!(console.io.out, "Client: {}", env!("CARGO_PKG_VERSION"))?;
    let client = console.client()?;
    let request =
        ListRequest { selector: Some(Selector { kind: Kind::Node.to_string(), ..Default::default() }), limit: 1, ..Default::default() };
    match client.list_page(request).await {
        Ok(page) => {
            writeln!(console.io.out, "Server: {} answers, at revision {}", console.target.server, page.revision)?;
            for node in client.list::<Node>("").await? {
                let name = node.metadata.unwrap_or_default().name;
                let version = node.status.and_then(|status| status.info).unwrap_or_default().kubelet_version;
                writeln!(console.io.out, "Node {name}: {}", super::rows::or_none(&version))?;
            }
        }
        Err(error) => writeln!(console.io.err, "Server: {error}")?,
    }
    Ok(())
}

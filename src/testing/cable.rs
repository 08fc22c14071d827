//! The network between a client and the apiserver, as something that a test can cut.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::tasks::Tasks;

/// A TCP forwarder to wherever the apiserver listens at the moment. Its own address never changes. Dropping it cuts everything.
#[derive(Debug)]
pub struct Cable {
    address: SocketAddr,
    line: watch::Sender<Line>,
    /// Carries, and ends with this.
    _tasks: Tasks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    /// Where it leads; `None`: nowhere, connections are reset.
    target: Option<SocketAddr>,
    link: Link,
    /// Grows with every cut: connections of an earlier number are reset.
    cuts: u64,
}

/// What the network between two parts does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Carries them.
    Good,
    /// Refuses connections.
    Unplugged,
    /// Carries what clients send, and holds back what the server answers without losing any of it, as a network does that is far too slow.
    Clogged,
    /// Keeps connections open and loses every byte, as a network does whose other end has vanished.
    Silent,
}

/// How much is carried at once.
const AT_ONCE: usize = 16 * 1024;

impl Link {
    fn carries(self) -> bool {
        matches!(self, Link::Good | Link::Clogged)
    }
}

impl Cable {
    /// A cable to `target`.
    ///
    /// # Errors
    /// What the operating system says when there is no free port.
    pub async fn new(target: SocketAddr) -> io::Result<Cable> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let line = watch::Sender::new(Line { target: Some(target), link: Link::Good, cuts: 0 });
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("cable", accept(listener, line.subscribe()));
        Ok(Cable { address, line, _tasks: tasks })
    }

    /// The client's end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Leads elsewhere from now on; what was connected is reset.
    pub fn lead_to(&self, target: Option<SocketAddr>) {
        self.line.send_modify(|line| *line = Line { target, cuts: line.cuts + 1, ..*line });
    }

    /// Resets every connection. New ones are carried as before.
    pub fn cut(&self) {
        self.line.send_modify(|line| line.cuts += 1);
    }

    /// Changes what happens to bytes; connections that lost some are reset.
    pub fn set_link(&self, link: Link) {
        self.line.send_modify(|line| line.link = link);
    }
}

async fn accept(listener: TcpListener, line: watch::Receiver<Line>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, _)) => drop(connections.spawn(carry(client, line.clone()))),
            Err(error) => {
                tracing::warn!(%error, "a test's cable can't accept");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

/// One connection, until an end closes it or the line loses bytes.
async fn carry(mut client: TcpStream, mut line: watch::Receiver<Line>) {
    let now = *line.borrow_and_update();
    let mut server = None;
    if let (true, Some(target)) = (now.link.carries(), now.target) {
        let flow = line.clone();
        let broken = line.wait_for(|line| line.target != now.target || line.cuts != now.cuts || !line.link.carries());
        let carried = async {
            let server = server.insert(TcpStream::connect(target).await?);
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            exchange(&mut client, server, flow).await
        };
        let ended_by_itself = tokio::select! {
            carried = carried => carried.is_ok(),
            _ = broken => false,
        };
        if ended_by_itself {
            return;
        }
    }
    // Bytes may be lost now, so the connection can't go on; whether anybody learns of that is up to the line.
    let learned = line.wait_for(|line| line.link != Link::Silent).await.is_ok();
    for stream in [Some(client), server].into_iter().flatten() {
        if let (true, Err(error)) = (learned, stream.set_zero_linger()) {
            tracing::debug!(%error, "a connection is closed instead of reset");
        }
    }
}

/// Carries both ways until both ends have nothing more to say.
async fn exchange(client: &mut TcpStream, server: &mut TcpStream, line: watch::Receiver<Line>) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let down = async {
        while_it_flows(&mut from_server, &mut to_client, line).await?;
        to_client.shutdown().await
    };
    tokio::try_join!(up, down).map(drop)
}

/// Carries one way, and waits while the line is clogged.
async fn while_it_flows(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>, mut line: watch::Receiver<Line>) -> io::Result<()> {
    let mut buffer = vec![0; AT_ONCE];
    loop {
        if line.wait_for(|line| line.link != Link::Clogged).await.is_err() {
            return Ok(());
        }
        let read = tokio::select! {
            biased;
            _ = line.wait_for(|line| line.link == Link::Clogged) => continue,
            read = from.read(&mut buffer) => read?,
        };
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> (SocketAddr, Tasks) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("echo", async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        (address, tasks)
    }

    async fn connect(cable: &Cable) -> TcpStream {
        TcpStream::connect(cable.address).await.expect("the cable accepts")
    }

    async fn ping(stream: &mut TcpStream) -> io::Result<u8> {
        stream.write_u8(7).await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn a_cut_resets_what_is_open_and_carries_what_is_new() {
        let (address, _tasks) = echo().await;
        let cable = Cable::new(address).await.expect("a free port");
        let mut before = connect(&cable).await;
        assert_eq!(ping(&mut before).await.expect("carried"), 7);
        cable.cut();
        assert!(before.read_u8().await.is_err());
        assert_eq!(ping(&mut connect(&cable).await).await.expect("carried"), 7);
    }

    #[tokio::test]
    async fn an_unplugged_cable_refuses_and_a_silent_one_loses_every_byte_and_resets_afterwards() {
        let (address, _tasks) = echo().await;
        let cable = Cable::new(address).await.expect("a free port");
        let mut before = connect(&cable).await;
        assert_eq!(ping(&mut before).await.expect("carried"), 7);
        cable.set_link(Link::Silent);
        let during = connect(&cable).await;
        let mut open = [before, during];
        for stream in &mut open {
            stream.write_u8(7).await.expect("open");
            let nothing = tokio::time::timeout(std::time::Duration::from_millis(50), stream.read_u8()).await;
            assert!(nothing.is_err(), "{nothing:?}");
        }
        cable.set_link(Link::Unplugged);
        for stream in &mut open {
            assert!(stream.read_u8().await.is_err());
        }
        cable.set_link(Link::Unplugged);
        assert!(ping(&mut connect(&cable).await).await.is_err());
        cable.set_link(Link::Good);
        assert_eq!(ping(&mut connect(&cable).await).await.expect("carried"), 7);
    }

    #[tokio::test]
    async fn a_clogged_cable_holds_answers_back_and_loses_none() {
        let (address, _tasks) = echo().await;
        let cable = Cable::new(address).await.expect("a free port");
        let mut before = connect(&cable).await;
        assert_eq!(ping(&mut before).await.expect("carried"), 7);
        cable.set_link(Link::Clogged);
        let mut during = connect(&cable).await;
        for (stream, word) in [(&mut before, [1, 2]), (&mut during, [3, 4])] {
            stream.write_all(&word).await.expect("open");
            let nothing = tokio::time::timeout(std::time::Duration::from_millis(50), stream.read_u8()).await;
            assert!(nothing.is_err(), "{nothing:?}");
        }
        cable.set_link(Link::Good);
        assert_eq!((before.read_u8().await.expect("carried"), before.read_u8().await.expect("carried")), (1, 2));
        assert_eq!((during.read_u8().await.expect("carried"), during.read_u8().await.expect("carried")), (3, 4));
    }
}

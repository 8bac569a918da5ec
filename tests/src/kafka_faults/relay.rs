//! A relay of TCP connections, of a network that can be cut.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes passed on at once.
const PART_BYTES: usize = 64 << 10;

/// How a network is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing comes through; afterwards connections go on where they were.
    Silent,
    /// Nothing comes through, and of the connections that there were nothing ever will.
    Forgotten,
    /// Connections are closed, and new ones refused.
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Network {
    cut: Option<Cut>,
    /// Connections of an earlier life are forgotten.
    life: u32,
}

impl Network {
    fn is_refusing(&self) -> bool {
        self.cut == Some(Cut::Refused)
    }
}

/// The relay; it ends with this.
#[derive(Debug)]
pub struct Relay {
    network: watch::Sender<Network>,
}

impl Relay {
    /// Passes on what comes to `at` to whoever listens at `to`.
    pub fn start(at: SocketAddr, to: SocketAddr) -> Self {
        let network = watch::Sender::new(Network { cut: None, life: 0 });
        tokio::spawn(relay(at, to, network.subscribe()));
        Self { network }
    }

    /// Cuts the network.
    pub fn cut(&self, how: Cut) {
        self.network.send_modify(|network| network.cut = Some(how));
    }

    /// Mends it.
    pub fn heal(&self) {
        self.network.send_modify(|network| {
            if network.cut.take() == Some(Cut::Forgotten) {
                network.life += 1;
            }
        });
    }
}

async fn relay(at: SocketAddr, to: SocketAddr, mut network: watch::Receiver<Network>) {
    while network
        .wait_for(|network| !network.is_refusing())
        .await
        .is_ok()
    {
        let listener = TcpListener::bind(at)
            .await
            .unwrap_or_else(|e| panic!("{at}: {e}"));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                refused = network.wait_for(Network::is_refusing) => match refused {
                    Ok(_) => break,
                    Err(_) => return,
                },
            };
            match accepted {
                Ok((client, _)) => drop(tokio::spawn(connection(client, to, network.clone()))),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

async fn connection(client: TcpStream, to: SocketAddr, mut network: watch::Receiver<Network>) {
    let life = network.borrow().life;
    let Ok(broker) = TcpStream::connect(to).await else {
        return;
    };
    for side in [&client, &broker] {
        // It is only slower without.
        let _ = side.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    tokio::select! {
        () = pass(from_client, to_broker, (network.clone(), life)) => {}
        () = pass(from_broker, to_client, (network.clone(), life)) => {}
        // Or the relay has ended.
        _ = network.wait_for(Network::is_refusing) => {}
    }
}

/// Passes bytes on until either side ends.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (mut network, life): (watch::Receiver<Network>, u32),
) {
    let mut part = vec![0; PART_BYTES];
    while let Ok(read @ 1..) = from.read(&mut part).await {
        let open = network.wait_for(|now| now.cut.is_none() && now.life == life);
        if open.await.is_err() || to.write_all(&part[..read]).await.is_err() {
            return;
        }
    }
}

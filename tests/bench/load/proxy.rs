//! A proxy in user space, as docker-proxy is one: a connection is accepted, another made, and bytes are copied.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream, UdpSocket},
};

/// Passes on what comes to `bind`, TCP and UDP, until it is ended.
///
/// # Errors
/// When the port cannot be had.
pub(super) fn run(bind: SocketAddr, target: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("start the proxy's threads")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(bind).await.with_context(|| format!("listen on {bind}"))?;
        let socket = UdpSocket::bind(bind).await.with_context(|| format!("receive on {bind}"))?;
        println!("ready");
        tokio::try_join!(connections(&listener, target), datagrams(Arc::new(socket), target))?;
        Ok(())
    })
}

async fn connections(listener: &TcpListener, target: SocketAddr) -> Result<()> {
    const BUFFER: usize = 64 << 10;
    loop {
        let (mut client, _) = listener.accept().await.context("accept a connection")?;
        tokio::spawn(async move {
            // Either end may go away when it likes.
            let _ = async {
                client.set_nodelay(true)?;
                let mut server = TcpStream::connect(target).await?;
                server.set_nodelay(true)?;
                copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await
            }
            .await;
        });
    }
}

async fn datagrams(socket: Arc<UdpSocket>, target: SocketAddr) -> Result<()> {
    let mut peers: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.context("receive a datagram")?;
        let onward = match peers.get(&from) {
            Some(onward) => onward.clone(),
            None => {
                let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let onward = Arc::new(UdpSocket::bind(any).await.context("make a socket")?);
                onward.connect(target).await.context("choose the peer")?;
                peers.insert(from, onward.clone());
                tokio::spawn(answers(onward.clone(), socket.clone(), from));
                onward
            }
        };
        // A full buffer loses datagrams, as anywhere.
        let _ = onward.send(&buffer[..length]).await;
    }
}

async fn answers(from: Arc<UdpSocket>, through: Arc<UdpSocket>, to: SocketAddr) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length) = from.recv(&mut buffer).await {
        let _ = through.send_to(&buffer[..length], to).await;
    }
}

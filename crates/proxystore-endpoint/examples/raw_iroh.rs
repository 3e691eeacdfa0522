//! What the QUIC library moves by itself between two processes of this host: a yardstick for `bench/python/peers.py`.
//!
//! `raw_iroh STREAMS` reads sizes, one a line, and answers each with the seconds it took to get so many
//! bytes over so many streams from a child process.
#![expect(clippy::print_stdout, reason = "its output is read by the bench")]

use std::error::Error;
use std::io::{BufRead, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use bytes::Bytes;
use iroh::endpoint::{Connection, PortmapperConfig, QuicTransportConfig, presets};
use iroh::{Endpoint, EndpointAddr, RelayMode, TransportAddr};

const PROTOCOL: &[u8] = b"proxystore/raw";
const SERVE: &str = "--serve";

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let argument = std::env::args().nth(1).unwrap_or_else(|| "4".into());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if argument == SERVE {
        runtime.block_on(serve())
    } else {
        runtime.block_on(get(argument.parse()?))
    }
}

async fn endpoint() -> Outcome<Endpoint> {
    let transport = QuicTransportConfig::builder().send_window(64 << 20).build();
    let builder = Endpoint::builder(presets::Minimal)
        .alpns(vec![PROTOCOL.to_vec()])
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled)
        .transport_config(transport);
    Ok(builder.clear_ip_transports().bind_addr("127.0.0.1:0")?.bind().await?)
}

/// Sends as many bytes as each stream asks for.
async fn serve() -> Outcome<()> {
    let endpoint = endpoint().await?;
    let port = endpoint.bound_sockets().first().map_or(0, std::net::SocketAddr::port);
    println!("{} {port}", endpoint.id());
    std::io::stdout().flush()?;
    let bytes = Bytes::from(vec![7; 1 << 20]);
    while let Some(incoming) = endpoint.accept().await {
        let (connection, bytes) = (incoming.await?, bytes.clone());
        tokio::spawn(async move {
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                let bytes = bytes.clone();
                tokio::spawn(async move {
                    let mut head = [0; 8];
                    receive.read_exact(&mut head).await?;
                    let mut left = u64::from_le_bytes(head) as usize;
                    while left > 0 {
                        let piece = bytes.slice(..left.min(bytes.len()));
                        left -= piece.len();
                        send.write_chunk(piece).await?;
                    }
                    send.finish()?;
                    Outcome::Ok(())
                });
            }
        });
    }
    Ok(())
}

async fn get(streams: usize) -> Outcome<()> {
    let program = std::env::current_exe()?;
    let mut child = Command::new(program).arg(SERVE).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let (id, port) = line.trim().split_once(' ').ok_or("no address")?;
    let address = TransportAddr::Ip(([127, 0, 0, 1], port.parse()?).into());
    let endpoint = endpoint().await?;
    let address = EndpointAddr::from_parts(id.parse()?, [address]);
    let connection = endpoint.connect(address, PROTOCOL).await?;
    for size in std::io::stdin().lock().lines() {
        let size: usize = size?.trim().parse()?;
        let start = Instant::now();
        fetch(&connection, size, streams).await?;
        println!("{}", start.elapsed().as_secs_f64());
        std::io::stdout().flush()?;
    }
    connection.close(0_u32.into(), b"done");
    child.kill()?;
    child.wait()?;
    Ok(())
}

async fn fetch(connection: &Connection, size: usize, streams: usize) -> Outcome<()> {
    let streams = if size < 1 << 20 { 1 } else { streams };
    let mut parts = tokio::task::JoinSet::new();
    for part in 0..streams {
        let (from, to) = (size * part / streams, size * (part + 1) / streams);
        let connection = connection.clone();
        parts.spawn(async move {
            let (mut send, mut receive) = connection.open_bi().await?;
            send.write_all(&((to - from) as u64).to_le_bytes()).await?;
            send.finish()?;
            let mut got = Vec::with_capacity(to - from);
            while let Some(chunk) = receive.read_chunk(1 << 20).await? {
                got.extend_from_slice(&chunk);
            }
            if got.len() == to - from { Outcome::Ok(()) } else { Err("short".into()) }
        });
    }
    while let Some(part) = parts.join_next().await {
        part??;
    }
    Ok(())
}

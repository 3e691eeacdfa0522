//! Frames over whatever carries bytes: sockets of clients, streams of peers.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use proxystore::wire::{
    Answer, FRAME_HEAD, Fault, FrameHead, PIECE_HEAD, PieceHead, Request, decode_answer,
    decode_request, encode_answer, encode_request,
};
use proxystore::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{error::Elapsed, timeout};

use crate::body::{Body, BodySender, PIECE};
use crate::service::Reply;

/// Bodies up to this long are read whole; longer ones come in pieces.
pub const WHOLE: u64 = 64 << 10;

const BUFFER: usize = 64 << 10;
const RECEIVE: &str = "receive a frame";
const SEND: &str = "send a frame";

/// What comes in: bytes that were read and not used yet, and where more come from.
#[derive(Debug)]
pub struct Incoming<R> {
    stream: R,
    buffer: BytesMut,
    /// How long the other side may be silent in the middle of something.
    patience: Duration,
}

impl<R: AsyncRead + Unpin> Incoming<R> {
    /// Reads from a stream, which may be silent for `patience` in the middle of something.
    pub fn new(stream: R, patience: Duration) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(BUFFER), patience }
    }

    /// The stream; what was read ahead is lost.
    pub fn into_inner(self) -> R {
        self.stream
    }

    /// Whether there is something to read without waiting.
    pub fn has_more(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Whether a whole request is there already, its body included if that is short.
    pub fn has_frame(&self) -> bool {
        let Some(Ok(frame)) = self.buffer.first_chunk().map(FrameHead::decode) else {
            return false;
        };
        let body = if frame.body <= WHOLE { frame.body as usize } else { 0 };
        self.buffer.len() >= FRAME_HEAD + usize::from(frame.head) + body
    }

    /// Exactly `N` bytes, within the patience.
    pub async fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.fill(N).await?;
        let mut out = [0; N];
        out.copy_from_slice(&self.buffer[..N]);
        self.buffer.advance(N);
        Ok(out)
    }

    /// The next frame: its fixed part and its head; `None` when the other side is done. Waits for its
    /// first byte as long as it takes.
    pub async fn frame(&mut self) -> Result<Option<(FrameHead, Bytes)>> {
        let Some(frame) = self.next().await? else { return Ok(None) };
        let head = Bytes::copy_from_slice(self.head(&frame));
        self.skip(&frame);
        Ok(Some((frame, head)))
    }

    /// The next frame and its request, as [`frame`](Self::frame); a request that cannot be read is an error of
    /// its own, after which the next one is found.
    pub async fn request(&mut self) -> Result<Option<(FrameHead, Result<Request>)>> {
        let Some(frame) = self.next().await? else { return Ok(None) };
        let request = decode_request(&frame, self.head(&frame));
        self.skip(&frame);
        Ok(Some((frame, request)))
    }

    /// The next frame and its answer.
    pub async fn answer(&mut self) -> Result<Option<(FrameHead, Answer)>> {
        let Some(frame) = self.next().await? else { return Ok(None) };
        let answer = decode_answer(&frame, self.head(&frame))?;
        self.skip(&frame);
        Ok(Some((frame, answer)))
    }

    /// Reads ahead, as much as there is room for; false when the other side is done.
    pub async fn ahead(&mut self) -> Result<bool> {
        if self.buffer.len() >= BUFFER {
            return std::future::pending().await;
        }
        self.buffer.reserve(BUFFER);
        let read = self.stream.read_buf(&mut self.buffer).await;
        Ok(read.map_err(|error| Error::io(RECEIVE, error))? > 0)
    }

    /// Reads until fixed part and head of a frame are in the buffer.
    async fn next(&mut self) -> Result<Option<FrameHead>> {
        if self.buffer.is_empty() {
            self.buffer.reserve(BUFFER);
            let read = self.stream.read_buf(&mut self.buffer).await;
            if read.map_err(|error| Error::io(RECEIVE, error))? == 0 {
                return Ok(None);
            }
        }
        self.fill(FRAME_HEAD).await?;
        let Some(fixed) = self.buffer.first_chunk() else { return Err(ended()) };
        let frame = FrameHead::decode(fixed)?;
        self.fill(FRAME_HEAD + usize::from(frame.head)).await?;
        Ok(Some(frame))
    }

    fn head(&self, frame: &FrameHead) -> &[u8] {
        &self.buffer[FRAME_HEAD..FRAME_HEAD + usize::from(frame.head)]
    }

    fn skip(&mut self, frame: &FrameHead) {
        self.buffer.advance(FRAME_HEAD + usize::from(frame.head));
    }

    /// The body of a frame that is at most [`WHOLE`] bytes long and does not come in pieces.
    pub async fn whole(&mut self, len: u64) -> Result<Bytes> {
        debug_assert!(len <= WHOLE, "longer bodies come in pieces");
        self.fill(len as usize).await?;
        // Copied: what is stored must not keep the whole buffer.
        let body = Bytes::copy_from_slice(&self.buffer[..len as usize]);
        self.buffer.advance(len as usize);
        Ok(body)
    }

    /// Passes the body of a frame on. When its receiver is gone, the rest is read all the same, so that the
    /// next frame is found.
    pub async fn feed(&mut self, frame: &FrameHead, sender: BodySender) -> Result<()> {
        self.feed_counted(frame, sender, |_| {}).await
    }

    /// The same, which tells how many bytes came whenever some did.
    pub async fn feed_counted(
        &mut self,
        frame: &FrameHead,
        sender: BodySender,
        count: impl Fn(u64),
    ) -> Result<()> {
        let mut left = frame.body;
        while left > 0 {
            let run = if frame.in_pieces {
                match PieceHead::decode(self.array::<PIECE_HEAD>().await?, left)? {
                    PieceHead::Bytes(len) => len.into(),
                    PieceHead::Aborted => {
                        let fault = self.fault().await?;
                        let _ = sender.send(Err(fault)).await; // nobody needs to listen
                        return Ok(());
                    }
                }
            } else {
                left
            };
            left -= run;
            let mut run = run;
            while run > 0 {
                let piece = self.piece(run).await?;
                run -= piece.len() as u64;
                count(piece.len() as u64);
                let _ = sender.send(Ok(piece)).await; // as above
            }
        }
        Ok(())
    }

    /// The next bytes of a run, [`PIECE`] at most, what was read ahead first.
    async fn piece(&mut self, run: u64) -> Result<Bytes> {
        let most = run.min(PIECE as u64) as usize;
        let mut piece = BytesMut::with_capacity(most);
        let ahead = most.min(self.buffer.len());
        piece.extend_from_slice(&self.buffer[..ahead]);
        self.buffer.advance(ahead);
        while piece.len() < most {
            // Never beyond the run: what follows belongs to the next frame.
            let mut rest = (&mut self.stream).take((most - piece.len()) as u64);
            let read = timeout(self.patience, rest.read_buf(&mut piece)).await;
            match read.map_err(|elapsed| self.silent().with_source(elapsed))? {
                Ok(0) => return Err(ended()),
                Ok(_) => {}
                Err(error) => return Err(Error::io(RECEIVE, error)),
            }
        }
        Ok(piece.freeze())
    }

    /// The fault that follows where a body broke off.
    async fn fault(&mut self) -> Result<Error> {
        match self.answer().await?.ok_or_else(ended)?.1 {
            Answer::Failed(fault) => Ok(fault.into_error("transfer an object")),
            _ => Err(Error::new(ErrorKind::Corrupt, RECEIVE, "a body broke off without a reason")),
        }
    }

    async fn fill(&mut self, len: usize) -> Result<()> {
        while self.buffer.len() < len {
            self.buffer.reserve(len - self.buffer.len());
            let read = timeout(self.patience, self.stream.read_buf(&mut self.buffer)).await;
            match read.map_err(|elapsed| self.silent().with_source(elapsed))? {
                Ok(0) => return Err(ended()),
                Ok(_) => {}
                Err(error) => return Err(Error::io(RECEIVE, error)),
            }
        }
        Ok(())
    }

    fn silent(&self) -> Error {
        Error::new(ErrorKind::Timeout, RECEIVE, "the other side fell silent in the middle of it")
            .with("seconds", self.patience.as_secs())
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Io, RECEIVE, "the connection ended in the middle of it")
}

/// Sends a request with its body.
///
/// # Errors
/// When the other side does not take it, and when the body fails: then the stream is of no more use.
pub async fn send_request<W: Outlet>(
    stream: &mut W,
    number: u32,
    request: &Request,
    body: Body,
    patience: Duration,
) -> Result<()> {
    let mut out = Vec::with_capacity(256);
    encode_request(&mut out, number, request, body.len(), !body.is_held())?;
    send(stream, out, number, body, patience).await
}

/// Sends an answer with its body. When the body fails in the middle, the receiver is told why.
///
/// # Errors
/// When the other side does not take it.
pub async fn send_reply<W: Outlet>(
    stream: &mut W,
    number: u32,
    reply: Reply,
    patience: Duration,
) -> Result<()> {
    let Reply { answer, body } = reply;
    let mut out = Vec::with_capacity(256);
    encode_answer(&mut out, number, &answer, body.len(), !body.is_held())?;
    send(stream, out, number, body, patience).await
}

/// Sends what is in `out`, then the body.
async fn send<W: Outlet>(
    stream: &mut W,
    mut out: Vec<u8>,
    number: u32,
    mut body: Body,
    patience: Duration,
) -> Result<()> {
    let in_pieces = !body.is_held();
    if !in_pieces && body.len() <= WHOLE {
        while let Some(piece) = body.next().await {
            out.extend_from_slice(&piece?);
        }
        return write(stream, &out, patience).await;
    }
    write(stream, &out, patience).await?;
    while let Some(piece) = body.next().await {
        match piece {
            Ok(mut piece) => {
                if in_pieces {
                    let head = PieceHead::Bytes(piece.len() as u32).encode();
                    write(stream, &head, patience).await?;
                }
                while !piece.is_empty() {
                    taken(timeout(patience, stream.take_from(&mut piece)).await, patience)?;
                }
            }
            Err(error) => {
                let mut out = PieceHead::Aborted.encode().to_vec();
                encode_answer(&mut out, number, &Answer::Failed(Fault::of(&error)), 0, false)?;
                return write(stream, &out, patience).await;
            }
        }
    }
    Ok(())
}

/// Writes all of it, as long as the other side takes some of it within the patience.
///
/// # Errors
/// [`ErrorKind::Timeout`] when it does not.
pub async fn write<W: AsyncWrite + Unpin>(
    stream: &mut W,
    mut bytes: &[u8],
    patience: Duration,
) -> Result<()> {
    while !bytes.is_empty() {
        let len = taken(timeout(patience, stream.write(bytes)).await, patience)?;
        bytes = &bytes[len..];
    }
    Ok(())
}

/// How many bytes the other side took.
fn taken(written: Result<io::Result<usize>, Elapsed>, patience: Duration) -> Result<usize> {
    match written {
        Ok(Ok(0)) => Err(ended()),
        Ok(Ok(len)) => Ok(len),
        Ok(Err(error)) => Err(Error::io(SEND, error)),
        Err(elapsed) => Err(Error::new(ErrorKind::Timeout, SEND, "the other side takes nothing")
            .with("seconds", patience.as_secs())
            .with_source(elapsed)),
    }
}

/// Where frames go: to clients over sockets, to peers over streams.
pub trait Outlet: AsyncWrite + Unpin + Send + Sized {
    /// Sends some of the bytes and says how many, without a copy if that can be.
    fn take_from(&mut self, bytes: &mut Bytes) -> impl Future<Output = io::Result<usize>> + Send {
        async { self.write_buf(bytes).await }
    }
}

impl Outlet for tokio::net::unix::OwnedWriteHalf {}

impl Outlet for tokio::net::tcp::OwnedWriteHalf {}

impl Outlet for iroh::endpoint::SendStream {
    async fn take_from(&mut self, bytes: &mut Bytes) -> io::Result<usize> {
        Ok(self.write_many_chunks(&mut std::slice::from_mut(bytes)).await?)
    }
}

//! One scrape on its way to one client.

use std::{
    io::{self, Write},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::{runtime::Handle, sync::mpsc, time};

use super::{exposition::Exporter, places::Place};
use crate::memory;

/// A scrape is given up after this long: a client that stops reading must not hold one for ever.
const DEADLINE: Duration = Duration::from_secs(10);
/// A client that has taken nothing for so long gives its place to another that waits.
const PATIENCE: Duration = Duration::from_millis(500);
/// Bytes handed over at once.
const CHUNK: usize = 128 * 1024;
/// Chunks that wait for the client.
const WAITING_CHUNKS: usize = 4;

enum Part {
    Chunk(Bytes),
    /// Without it the response is cut off, and the client must see that.
    End,
}

/// Starts a scrape and returns the response it fills. The place is given back when the scrape ends.
pub(super) fn start(exporter: Arc<Exporter>, place: Place) -> Body {
    let (parts, received) = mpsc::channel(WAITING_CHUNKS);
    let runtime = Handle::current();
    let deadline = time::Instant::now() + DEADLINE;
    // Nobody waits for it: it ends by itself, when it is done or when its client or its time is gone.
    drop(tokio::task::spawn_blocking(move || {
        let buffer = Vec::with_capacity(CHUNK);
        let writer = Chunks { buffer, parts, place, runtime, deadline, waited: Duration::ZERO };
        if let Err(error) = run(&exporter, writer) {
            tracing::debug!(%error, "a scrape was not finished");
        }
        memory::give_back();
    }));
    let chunks = stream::unfold(Some(received), |received| async {
        let mut received = received?;
        match received.recv().await {
            Some(Part::Chunk(bytes)) => Some((Ok(bytes), Some(received))),
            Some(Part::End) => None,
            None => Some((Err(io::Error::other("the scrape was given up")), None)),
        }
    });
    // Compression asks once more after the end.
    Body::from_stream(chunks.fuse())
}

fn run(exporter: &Exporter, mut writer: Chunks) -> io::Result<()> {
    let begun = Instant::now();
    exporter.write(&mut writer)?;
    writer.flush()?;
    exporter.observe(begun.elapsed().saturating_sub(writer.waited));
    writer.send(Part::End)
}

/// Collects what is written and hands it over chunk by chunk.
struct Chunks {
    buffer: Vec<u8>,
    parts: mpsc::Sender<Part>,
    place: Place,
    runtime: Handle,
    deadline: time::Instant,
    waited: Duration,
}

impl Chunks {
    fn send(&mut self, part: Part) -> io::Result<()> {
        let Err(mpsc::error::TrySendError::Full(part)) = self.parts.try_send(part) else {
            return if self.parts.is_closed() { Err(hung_up(())) } else { Ok(()) };
        };
        let begun = Instant::now();
        let sent = self.runtime.block_on(self.wait(part));
        self.waited += begun.elapsed();
        sent
    }

    async fn wait(&self, part: Part) -> io::Result<()> {
        let mut sending = pin!(self.parts.send(part));
        loop {
            let pause = self.deadline.min(time::Instant::now() + PATIENCE);
            match time::timeout_at(pause, &mut sending).await {
                Ok(sent) => return sent.map_err(hung_up),
                Err(_elapsed) if pause == self.deadline || self.place.is_wanted() => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly"));
                }
                Err(_elapsed) => {}
            }
        }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > CHUNK {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.send(Part::Chunk(chunk.into()))
    }
}

fn hung_up<T>(_: T) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client hung up")
}

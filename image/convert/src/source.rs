//! The unpacked tar as a stream that one thread unpacks, one hashes and the caller reads. What they do is the same in
//! any order, so the result does not depend on the machine.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use ah_digest::Sha256;
use sha2::Digest as _;

use crate::MAX_LAYER_BYTES;

/// Large enough that threads seldom wake each other, small enough that a chunk is still in a core's cache.
const CHUNK_BYTES: usize = 128 << 10;
/// Chunks under way to each reader.
const CHUNKS: usize = 3;

/// A piece of the tar. Its buffer goes back to the unpacking thread once both readers are done with it.
struct Chunk {
    buffer: Vec<u8>,
    length: usize,
    home: Option<SyncSender<Vec<u8>>>,
}

impl Chunk {
    fn empty() -> Arc<Self> {
        Arc::new(Self { buffer: Vec::new(), length: 0, home: None })
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            // a full or closed way home only means that the buffer is not used again
            let _ = home.try_send(std::mem::take(&mut self.buffer));
        }
    }
}

/// Reads what the unpacking thread sends.
pub(crate) struct Source {
    chunks: Receiver<io::Result<Arc<Chunk>>>,
    chunk: Arc<Chunk>,
    at: usize,
}

/// The hashing thread; its end is the tar's end.
pub(crate) struct Hashed<'scope>(ScopedJoinHandle<'scope, (Sha256, u64)>);

/// Starts both threads over `tar`.
pub(crate) fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    tar: Box<dyn Read + Send + 'scope>,
) -> (Source, Hashed<'scope>) {
    let (to_reader, chunks) = sync_channel(CHUNKS);
    let (to_hasher, hash_chunks) = sync_channel(CHUNKS);
    scope.spawn(move || unpack(tar, &to_reader, &to_hasher));
    let hashed = scope.spawn(move || hash(&hash_chunks));
    (Source { chunks, chunk: Chunk::empty(), at: 0 }, Hashed(hashed))
}

/// Ends when the tar does, or when its reader is gone.
fn unpack(
    mut tar: Box<dyn Read + Send + '_>,
    to_reader: &SyncSender<io::Result<Arc<Chunk>>>,
    to_hasher: &SyncSender<Arc<Chunk>>,
) {
    let (home, used) = sync_channel(2 * CHUNKS + 2);
    let mut total = 0u64;
    loop {
        let mut buffer: Vec<u8> = used.try_recv().unwrap_or_else(|_| vec![0; CHUNK_BYTES]);
        let result = fill(&mut tar, &mut buffer).and_then(|length| {
            total += length as u64;
            match total {
                0..=MAX_LAYER_BYTES => Ok(length),
                _ => {
                    let text =
                        format!("layer is too large: expected at most {MAX_LAYER_BYTES} bytes");
                    Err(io::Error::new(io::ErrorKind::InvalidData, text))
                }
            }
        });
        let result = match result {
            Ok(0) => return,
            Ok(length) => Ok(Arc::new(Chunk { buffer, length, home: Some(home.clone()) })),
            Err(error) => Err(error),
        };
        let failed = result.is_err();
        if let Ok(chunk) = &result {
            // The hasher ends only when this thread does.
            let _ = to_hasher.send(Arc::clone(chunk));
        }
        if to_reader.send(result).is_err() || failed {
            return;
        }
    }
}

/// Fills the buffer; less only at the end. A decoder is fastest when it may write much at once.
fn fill(tar: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match tar.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn hash(chunks: &Receiver<Arc<Chunk>>) -> (Sha256, u64) {
    let mut hasher = sha2::Sha256::new();
    let mut bytes = 0;
    for chunk in chunks {
        hasher.update(chunk.bytes());
        bytes += chunk.length as u64;
    }
    (Sha256::new(hasher.finalize().into()), bytes)
}

impl Hashed<'_> {
    /// SHA-256 and length of the whole tar, once it was read to its end.
    pub(crate) fn finish(self) -> (Sha256, u64) {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.length {
            // Both a sent end and a vanished sender are the tar's end: the diff id tells whether it is the true one.
            self.chunk = self.chunks.recv().unwrap_or_else(|_| Ok(Chunk::empty()))?;
            self.at = 0;
        }
        Ok(&self.chunk.bytes()[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.chunk.length);
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

//! The unpacked tar as a stream that one thread unpacks, one hashes and the caller reads. What they do is the same in
//! any order, so the result does not depend on the machine.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use ah_digest::Sha256;
use sha2::Digest as _;

use crate::MAX_LAYER_BYTES;

const CHUNK_BYTES: usize = 256 << 10;
/// Chunks under way to each reader.
const CHUNKS: usize = 8;

type Chunk = Arc<Vec<u8>>;

/// Reads what the unpacking thread sends.
pub(crate) struct Source {
    chunks: Receiver<io::Result<Chunk>>,
    chunk: Chunk,
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
    (Source { chunks, chunk: Chunk::default(), at: 0 }, Hashed(hashed))
}

/// Ends when the tar does, or when its reader is gone.
fn unpack(
    mut tar: Box<dyn Read + Send + '_>,
    to_reader: &SyncSender<io::Result<Chunk>>,
    to_hasher: &SyncSender<Chunk>,
) {
    let mut total = 0u64;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let result = (&mut tar).take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
        total += chunk.len() as u64;
        let result = match result {
            Ok(0) => return,
            Ok(_) if total > MAX_LAYER_BYTES => {
                let text = format!("layer is too large: expected at most {MAX_LAYER_BYTES} bytes");
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
            Ok(_) => Ok(Chunk::new(chunk)),
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

fn hash(chunks: &Receiver<Chunk>) -> (Sha256, u64) {
    let mut hasher = sha2::Sha256::new();
    let mut bytes = 0;
    for chunk in chunks {
        hasher.update(&*chunk);
        bytes += chunk.len() as u64;
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
        if self.at == self.chunk.len() {
            // Both a sent end and a vanished sender are the tar's end: the diff id tells whether it is the true one.
            self.chunk = self.chunks.recv().unwrap_or_else(|_| Ok(Chunk::default()))?;
            self.at = 0;
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.chunk.len());
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

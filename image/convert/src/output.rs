//! The image's blocks on their way out: one thread hashes and writes them while the caller makes the next.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use ah_erofs::{BLOCK_BYTES, BlockSink};
use ah_verity::{TreeBuilder, ZERO_SALT};
use ah_verity_sys::LeafHasher;

/// Pieces under way to the writing thread.
const PIECES: usize = 3;

/// Where the image goes.
pub(crate) trait Output: Sync {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

impl Output for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }
}

/// Keeps nothing: for the root hash alone.
pub(crate) struct Discard;

impl Output for Discard {
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// The caller's end: takes blocks from the image writer.
pub(crate) struct Pump {
    pieces: SyncSender<Vec<u8>>,
    used: Receiver<Vec<u8>>,
    first: [u8; BLOCK_BYTES],
}

/// The writing thread.
pub(crate) struct Written<'scope>(ScopedJoinHandle<'scope, io::Result<TreeBuilder>>);

impl Pump {
    pub(crate) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        out: &'scope dyn Output,
    ) -> (Self, Written<'scope>) {
        let (pieces, to_write) = sync_channel::<Vec<u8>>(PIECES);
        let (give_back, used) = sync_channel(PIECES + 2);
        let written = scope.spawn(move || {
            let mut tree = TreeBuilder::new(ZERO_SALT);
            tree.defer_first();
            let hasher = LeafHasher::new(ZERO_SALT);
            let mut leaves = Vec::new();
            let mut offset = BLOCK_BYTES as u64;
            for piece in to_write {
                hasher.hash(piece.as_chunks().0, &mut leaves);
                tree.push_hashes(&leaves);
                out.write_at(&piece, offset)?;
                offset += piece.len() as u64;
                let _ = give_back.try_send(piece);
            }
            Ok(tree)
        });
        (Self { pieces, used, first: [0; BLOCK_BYTES] }, Written(written))
    }

    /// Block 0, after the image writer gave it; ends the writing thread.
    pub(crate) fn into_first(self) -> [u8; BLOCK_BYTES] {
        self.first
    }
}

impl BlockSink for Pump {
    fn append(&mut self, blocks: Vec<u8>) -> io::Result<Vec<u8>> {
        let capacity = blocks.capacity();
        self.pieces.send(blocks).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(self.used.try_recv().unwrap_or_else(|_| Vec::with_capacity(capacity)))
    }

    fn first(&mut self, block: &[u8; BLOCK_BYTES]) -> io::Result<()> {
        self.first = *block;
        Ok(())
    }
}

impl Written<'_> {
    /// The leaves of the hash tree, block 0 open, once every block is written.
    pub(crate) fn finish(self) -> io::Result<TreeBuilder> {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

//! A blob as a blocking reader, while the network runs beside it; a download that breaks off goes on where it was.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use oci_spec::distribution::Reference;
use tokio::sync::mpsc;

use super::http::Http;

/// Pieces of a blob held between network and reader.
const PIECES: usize = 8;
/// How often a download goes on after it broke off.
const MAX_RESUMED: u32 = 4;

/// Begins a download on the runtime that the calling thread has entered.
pub(super) fn open(http: Arc<Http>, reference: Reference, path: String) -> io::Result<Pieces> {
    let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
    let (sender, pieces) = mpsc::channel(PIECES);
    runtime.spawn(async move {
        if let Err(error) = fetch(&http, &reference, &path, &sender).await {
            // a receiver that is gone has its own error
            let _ = sender.send(Err(error)).await;
        }
    });
    Ok(Pieces { pieces, piece: Bytes::new() })
}

async fn fetch(
    http: &Http,
    reference: &Reference,
    path: &str,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let (mut offset, mut resumed) = (0u64, 0);
    let mut response = http.open(reference, path, "*/*", 0).await.map_err(io::Error::other)?;
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(()),
            Ok(Some(piece)) => {
                offset += piece.len() as u64;
                if sender.send(Ok(piece)).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) if resumed >= MAX_RESUMED => {
                return Err(io::Error::other(error.without_url()));
            }
            Err(_) => {
                resumed += 1;
                response =
                    http.open(reference, path, "*/*", offset).await.map_err(io::Error::other)?;
            }
        }
    }
}

/// Blocking end of a download.
pub(super) struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len());
        let taken = self.piece.split_to(length);
        buffer[..length].copy_from_slice(&taken);
        Ok(length)
    }
}

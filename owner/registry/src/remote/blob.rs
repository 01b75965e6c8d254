//! A blob as a blocking reader, while the network runs beside it; a download that breaks off goes on where it was.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::http::Http;
use crate::name::Reference;

/// Batches of pieces held between network and reader.
const BATCHES: usize = 2;
/// Bytes at which a batch is passed on: the two ends wake each other once for so many.
const BATCH_BYTES: usize = 256 << 10;
/// How often a download goes on after it broke off.
const MAX_RESUMED: u32 = 4;

/// Begins a download on the runtime that the calling thread has entered.
pub(super) fn open(http: Arc<Http>, reference: Reference, path: String) -> io::Result<Pieces> {
    let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
    let (sender, batches) = mpsc::channel(BATCHES);
    runtime.spawn(async move {
        if let Err(error) = fetch(&http, &reference, &path, &sender).await {
            // a receiver that is gone has its own error
            let _ = sender.send(Err(error)).await;
        }
    });
    Ok(Pieces { batches, batch: VecDeque::new() })
}

async fn fetch(
    http: &Http,
    reference: &Reference,
    path: &str,
    sender: &mpsc::Sender<io::Result<VecDeque<Bytes>>>,
) -> io::Result<()> {
    let (mut offset, mut resumed) = (0u64, 0);
    let (mut batch, mut batch_bytes) = (VecDeque::new(), 0);
    let mut response = http.open(reference, path, "*/*", 0).await.map_err(io::Error::other)?;
    loop {
        match response.chunk().await {
            Ok(None) => {
                // a receiver that is gone wants no more
                let _ = sender.send(Ok(batch)).await;
                return Ok(());
            }
            Ok(Some(piece)) => {
                offset += piece.len() as u64;
                batch_bytes += piece.len();
                batch.push_back(piece);
                if batch_bytes >= BATCH_BYTES {
                    batch_bytes = 0;
                    if sender.send(Ok(std::mem::take(&mut batch))).await.is_err() {
                        return Ok(());
                    }
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
    batches: mpsc::Receiver<io::Result<VecDeque<Bytes>>>,
    batch: VecDeque<Bytes>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(piece) = self.batch.front_mut() {
                let length = buffer.len().min(piece.len());
                let taken = piece.split_to(length);
                buffer[..length].copy_from_slice(&taken);
                if piece.is_empty() {
                    self.batch.pop_front();
                }
                if length > 0 || buffer.is_empty() {
                    return Ok(length);
                }
            } else {
                match self.batches.blocking_recv() {
                    Some(batch) => self.batch = batch?,
                    None => return Ok(0),
                }
            }
        }
    }
}

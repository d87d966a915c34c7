//! Taking a body in: from a stream to a temporary file, hashed on the way, in bounded memory (I11).
//!
//! A small body stays in memory until it is written in one go. A large one is fsynced here already, so that its key is
//! not locked meanwhile. A crash, or a body that ends in an error, leaves at most a temporary file.

use super::blocking::Blocking;
use super::error::{StoreResult, io_error};
use super::limits::{STAGE_BYTES, SYNC_EARLY_BYTES};
use super::tree::{Temp, Tree};
use super::types::{BodyCheck, BodyDigest};
use engine::error::PortResult;
use engine::ports::objects::ByteStream;
use futures_util::StreamExt;
use lifecycle::ids::{Checksum, ObjectKey};
use md5::{Digest, Md5};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

/// A body on its way to the disk.
pub(super) struct Intake {
    tree: Arc<Tree>,
    name: String,
    temp: Option<Temp>,
    size: u64,
    md5: Md5,
    crc64: crc64fast_nvme::Digest,
    check: Option<Box<dyn BodyCheck>>,
    /// The end of the body, still in memory; all of it if it is small.
    rest: Vec<u8>,
}

/// A body on the disk, not durable yet, that its check has agreed to.
pub(super) struct Taken {
    /// The file.
    pub(super) temp: Temp,
    /// What it holds.
    pub(super) digest: BodyDigest,
    /// The client's checksums.
    pub(super) sums: BTreeMap<String, String>,
}

impl Intake {
    /// For a temporary file of that name.
    pub(super) fn new(tree: Arc<Tree>, name: String, check: Option<Box<dyn BodyCheck>>) -> Intake {
        Intake {
            tree,
            name,
            temp: None,
            size: 0,
            md5: Md5::new(),
            crc64: crc64fast_nvme::Digest::new(),
            check,
            rest: Vec::new(),
        }
    }

    /// Takes the whole body in.
    pub(super) async fn receive(
        mut self,
        blocking: &Blocking,
        attempted: &'static str,
        key: &ObjectKey,
        mut body: ByteStream,
    ) -> StoreResult<Intake> {
        while let Some(piece) = body.next().await {
            self.rest.extend_from_slice(&piece?);
            if self.rest.len() >= STAGE_BYTES {
                self = self.write_rest(blocking, attempted, key).await?;
            }
        }
        if self.size < SYNC_EARLY_BYTES {
            return Ok(self);
        }
        let written = self.write_rest(blocking, attempted, key).await?;
        let sync = move || {
            if let Some(temp) = &written.temp {
                temp.file.sync_data()?;
            }
            Ok(written)
        };
        let synced: io::Result<Intake> = blocking.run(attempted, key, sync).await?;
        Ok(synced.map_err(|error| io_error(attempted, key, error))?)
    }

    async fn write_rest(mut self, blocking: &Blocking, attempted: &'static str, key: &ObjectKey) -> PortResult<Intake> {
        let write = move || {
            let mut rest = std::mem::take(&mut self.rest);
            self.write(&rest)?;
            rest.clear();
            self.rest = rest;
            Ok(self)
        };
        let written: io::Result<Intake> = blocking.run(attempted, key, write).await?;
        written.map_err(|error| io_error(attempted, key, error))
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.temp.is_none() {
            self.temp = Some(self.tree.temp(self.name.clone())?);
        }
        if let Some(temp) = self.temp.as_mut() {
            temp.file.write_all(piece)?;
        }
        self.size += piece.len() as u64;
        self.md5.update(piece);
        self.crc64.write(piece);
        if let Some(check) = self.check.as_mut() {
            check.update(piece);
        }
        Ok(())
    }

    /// Writes the rest and asks the check. Blocks.
    pub(super) fn finish(mut self, attempted: &'static str, key: &ObjectKey) -> StoreResult<Taken> {
        let rest = std::mem::take(&mut self.rest);
        self.write(&rest).map_err(|error| io_error(attempted, key, error))?;
        let md5: [u8; 16] = self.md5.finalize().into();
        let digest = BodyDigest { size: self.size, md5, crc64: Checksum(self.crc64.sum64()) };
        let sums = self.check.map_or(Ok(BTreeMap::new()), |check| check.finish(&digest))?;
        let temp = self.temp.expect("writing the rest has made the file");
        Ok(Taken { temp, digest, sums })
    }
}

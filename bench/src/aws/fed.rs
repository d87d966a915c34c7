//! Events from memory, as the daemon's queue feeds them: handed out in order, in batches, each answered once.

use super::job::Job;
use anyhow::{Context, Result};
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::events::{Backlog, Delivery, EventQueue, Receipt};
use lifecycle::event::{Happened, ObjectEvent, Version};
use lifecycle::ids::{ETag, ObjectKey};
use lifecycle::order::Order;
use lifecycle::time::UnixMs;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// The queue. An event that fails ends the benchmark: what is measured is work that was done.
pub(crate) struct Fed {
    waiting: Mutex<VecDeque<Delivery>>,
    open: Mutex<usize>,
    failed: Mutex<Option<String>>,
    /// Cancelled once all of them are answered.
    pub(crate) over: CancellationToken,
}

impl Fed {
    /// All events of the job.
    pub(crate) fn of(job: &Job) -> Result<Fed> {
        let waiting = (0..job.items).map(|n| delivery(job, n)).collect::<Result<VecDeque<Delivery>>>()?;
        let open = Mutex::new(waiting.len());
        Ok(Fed { waiting: Mutex::new(waiting), open, failed: Mutex::default(), over: CancellationToken::new() })
    }

    /// Why an event failed, if one did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn end(&self, why: &str) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why.to_owned());
        self.over.cancel();
    }
}

#[async_trait]
impl EventQueue for Fed {
    async fn receive(&self, limit: usize) -> PortResult<Vec<Delivery>> {
        let batch: Vec<Delivery> = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let count = limit.min(waiting.len());
            waiting.drain(..count).collect()
        };
        if batch.is_empty() {
            // Nothing comes any more: the last answers end the driver.
            self.over.cancelled().await;
        }
        Ok(batch)
    }

    async fn done(&self, receipts: &[Receipt]) -> PortResult<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        *open = open.saturating_sub(receipts.len());
        if *open == 0 {
            self.over.cancel();
        }
        Ok(())
    }

    async fn again(&self, _receipt: &Receipt, _not_before: UnixMs, why: &str) -> PortResult<()> {
        self.end(why);
        Ok(())
    }

    async fn give_up(&self, _receipt: &Receipt, why: &str) -> PortResult<()> {
        self.end(why);
        Ok(())
    }

    async fn backlog(&self) -> PortResult<Backlog> {
        Err(PortError::new("count events", "the benchmark's queue", ErrorKind::Unsupported))
    }
}

fn delivery(job: &Job, n: usize) -> Result<Delivery> {
    let created = job.event(n);
    let version = Version { version_id: None, etag: ETag::from(job.etag.as_str()), size: job.size };
    let event = ObjectEvent {
        key: ObjectKey::new(created.key)?,
        time: UnixMs(created.time_ms),
        order: Some(Order::from_sequencer(&created.sequencer).context("16 hex digits")?),
        what: Happened::Created(version),
    };
    Ok(Delivery { receipt: Receipt(n.to_string()), attempts: 1, bucket: job.source.clone(), event })
}

//! Queues of services that feed policies, and what waits in them. One driver of its own for each: a queue that cannot be
//! reached holds no other one up, and an event reaches the policies of its own queue only.

use crate::instance::{Instance, UNPOISONED};
use crate::limits::INTAKE_AGAIN;
use aws::SqsQueue;
use engine::driver::{Driver, Policies};
use engine::ports::events::{Backlog, EventQueue};
use engine::report::chain;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// One queue.
#[derive(Clone)]
pub(crate) struct Intake {
    /// As the configuration names it.
    pub(crate) name: String,
    /// The queue.
    pub(crate) queue: Arc<SqsQueue>,
    /// Whose events it carries.
    pub(crate) policies: Policies,
}

impl Instance {
    /// The queues of services.
    pub(crate) fn all_intakes(&self) -> Vec<Intake> {
        self.intakes.read().expect(UNPOISONED).values().cloned().collect()
    }

    /// What waits in all queues together; and, in words, which of them could not be asked.
    pub(crate) async fn backlog(&self) -> (Backlog, Vec<String>) {
        let (mut all, mut unknown) = (Backlog::default(), Vec::new());
        let intakes = self.all_intakes();
        let here = ("the spool".to_owned(), self.queue.clone());
        let there = intakes.into_iter().map(|intake| (intake.name, intake.queue as Arc<dyn EventQueue>));
        let failures: BTreeMap<String, Arc<SqsQueue>> =
            self.all_archivings().iter().filter_map(|archiving| archiving.failures()).collect();
        let failures = failures.into_iter().map(|(name, queue)| (name, queue as Arc<dyn EventQueue>));
        for (name, queue) in std::iter::once(here).chain(there).chain(failures) {
            match queue.backlog().await {
                Ok(Backlog { waiting, oldest, dead }) => {
                    all.waiting += waiting;
                    all.dead += dead;
                    all.oldest = all.oldest.into_iter().chain(oldest).min();
                }
                Err(error) => unknown.push(format!("what waits in {name} is not known: {}", chain(&error))),
            }
        }
        (all, unknown)
    }
}

/// Drives a queue until cancelled. What fails for good, such as a queue that was deleted, is tried again all the same: a
/// person may mend it, and the events wait.
pub(crate) async fn drive(instance: Arc<Instance>, intake: Intake, cancel: CancellationToken) {
    let driver = Driver {
        queue: intake.queue,
        policies: intake.policies,
        clock: instance.clock.clone(),
        nonces: instance.nonces.clone(),
        metrics: instance.metrics.clone(),
    };
    while let Err(error) = driver.run(&cancel).await {
        tracing::error!(queue = intake.name, "the queue cannot be read: {}", chain(&error));
        tokio::select! {
            () = cancel.cancelled() => return,
            () = instance.clock.sleep(INTAKE_AGAIN) => {}
        }
    }
}

//! Feeds: what was archived is told to a file, a webhook or a queue, as long as `serve` runs.
//!
//! A feed that cannot be opened, or does not take what it is told, holds up nothing: it is tried again, `status` says it, and
//! what is to be told waits beside the archive.

use crate::archiving::{Archiving, holder, retries};
use crate::exit::Failure;
use crate::instance::{Instance, UNPOISONED};
use crate::limits::FEED_OPEN_AGAIN;
use aws::{HttpWebhook, WebhookSecret};
use engine::config::{FeedConfig, FeedTo};
use engine::error::{ErrorKind, PortError};
use engine::flows::feed::Feeder;
use engine::ports::feed::{FeedSink, ToWebhook};
use engine::steps::outbox::OutboxPurger;
use lifecycle::archive::hash_of;
use local::feed_file::FeedFile;
use local::secret_file::read_secret;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Tells a table's deletions until cancelled, if anybody is to be told.
pub(crate) async fn feed(instance: Arc<Instance>, archiving: Arc<Archiving>, cancel: CancellationToken) {
    let Some(config) = archiving.config.feed.clone() else { return };
    while !cancel.is_cancelled() {
        match feeder(&instance, &archiving, &config).await {
            Ok(feeder) => return feeder.run(&cancel).await,
            Err(failure) => {
                let (table, why) = (&archiving.config.table, failure.chain());
                if archiving.feed_seen.note_trouble(Some(why.clone())) {
                    tracing::error!(%table, "the feed {} cannot be opened: {why}", config.to);
                }
            }
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = instance.clock.sleep(FEED_OPEN_AGAIN) => {}
        }
    }
}

async fn feeder(instance: &Instance, archiving: &Archiving, config: &FeedConfig) -> Result<Feeder, Failure> {
    let Some(outbox) = archiving.outbox(instance)? else { return Err(Failure::failed("it has no outbox")) };
    // Tables of one name in different places tell their own.
    let place = hash_of(archiving.config.destination.to_string().as_bytes());
    Ok(Feeder {
        outbox,
        purger: OutboxPurger::new(archiving.purger(instance)?),
        sink: sink(instance, &config.to).await?,
        leases: archiving.leases.catalog(&retries(instance)),
        lease: format!("feed-{}-{place}", archiving.config.table.name),
        holder: holder(instance),
        clock: instance.clock.clone(),
        nonces: instance.nonces.clone(),
        metrics: instance.metrics.clone(),
        seen: archiving.feed_seen.clone(),
    })
}

async fn sink(instance: &Instance, to: &FeedTo) -> Result<Arc<dyn FeedSink>, Failure> {
    Ok(match to {
        FeedTo::File(path) => file(instance, path),
        FeedTo::Queue(queue) => Arc::new(instance.services.queue_feed(queue).await?),
        FeedTo::Webhook { url, secret_file } => {
            let refused = |why: String| PortError::new("read secret", secret_file.display(), ErrorKind::NotSetUp(why));
            let secret = WebhookSecret::read(&read_secret(secret_file)?).map_err(refused)?;
            let webhook = HttpWebhook::new(url, &to.to_string(), secret, instance.clock.clone());
            Arc::new(ToWebhook(Arc::new(webhook)))
        }
    })
}

/// A file has one writer, however many tables are told there.
fn file(instance: &Instance, path: &Path) -> Arc<FeedFile> {
    let mut files = instance.feed_files.lock().expect(UNPOISONED);
    files.entry(path.to_owned()).or_insert_with(|| Arc::new(FeedFile::new(path))).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::opened;
    use crate::wiring::archiving_of_own_table;
    use engine::config::RECORDS_BUCKET;
    use engine::memory::clock::MemoryClock;
    use engine::ports::objects::Attributes;
    use engine::steps::outbox::Outbox;
    use lifecycle::ids::ObjectKey;
    use lifecycle::time::UnixMs;

    /// Killed between the file and its row: it was told before, and must not be taken for damaged for ever.
    #[tokio::test]
    async fn an_object_whose_removal_was_cut_off_is_taken_for_told() {
        let (root, instance) = opened(Arc::new(MemoryClock::at(UnixMs(1_795_245_972_000)))).await;
        let archiving = archiving_of_own_table(&instance, "Orders").await.unwrap();
        let (place, writer) = ("feed/Orders/stream/shard/1-1-1.jsonl", archiving.writer(&instance).unwrap());
        let name = ObjectKey::new(format!(".afterimage/{place}")).unwrap();
        assert!(writer.put_new(&name, "{}\n".into(), &Attributes::default()).await.unwrap());
        let outbox = Outbox::new(writer, "Orders", "local://records", false);
        assert_eq!(outbox.read(&name).await.unwrap().map(|lines| lines.len()), Some(1));
        let bucket = root.path().join("data/buckets").join(RECORDS_BUCKET);
        let file = bucket.join("%2Eafterimage").join(place);
        // Bytes that are others than were written are not gone: what they said was told by nobody.
        for damaged in ["[]\n", "{}"] {
            std::fs::write(&file, damaged).unwrap();
            let read = outbox.read(&name).await;
            assert!(matches!(&read, Err(error) if matches!(error.kind, ErrorKind::Damaged(_))), "{read:?}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(outbox.read(&name).await.unwrap(), None);
        assert_eq!(outbox.waiting(None).await.unwrap().items.len(), 1);
        OutboxPurger::new(archiving.purger(&instance).unwrap()).remove(&name).await.unwrap();
        assert_eq!(outbox.waiting(None).await.unwrap().items.len(), 0);
    }
}

//! `archive self-test`: the check before production.

use super::table_named::own_or_named;
use crate::answer::{Answer, SelfTested, StepView};
use crate::command::SelfTestOf;
use crate::exit::Failure;
use crate::feed::Feed;
use crate::instance::Instance;
use engine::config::LOCAL_SERVICE;
use engine::flows::self_test::{DeletedBy, SelfTest, SelfTestRequest};
use lifecycle::time::SpanMs;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Does it.
pub(crate) async fn self_test(
    instance: &Instance,
    asked: &SelfTestOf,
    who: &str,
    feed: &Feed,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let (table, archiving) = own_or_named(instance, &asked.table).await?;
    let Some(archiving) = archiving else {
        if table.service.as_deref() == Some(LOCAL_SERVICE) {
            return Err(Failure::usage(format!("{table} is not archived: `afterimage status` says why")));
        }
        return Err(Failure::usage(format!(
            "dynamodb://{table} is not archived: `afterimage archive enable dynamodb://{table}` says what to add to the \
             configuration"
        )));
    };
    let test = SelfTest {
        table: Arc::new(instance.services.table(&table).await?),
        name: table.name.clone(),
        archive: archiving.reader(instance)?,
        service: archiving.config.service.clone(),
        journal: instance.journal.clone(),
        clock: instance.clock.clone(),
        nonces: instance.nonces.clone(),
        who: who.to_owned(),
    };
    let by = if asked.ttl { DeletedBy::Ttl } else { DeletedBy::Hand };
    let request = SelfTestRequest { by, within: SpanMs(asked.within_ms) };
    let steps = test.run(request, feed, cancel).await;
    let table = format!("dynamodb://{table}");
    Ok(Answer::SelfTested(SelfTested { table, steps: steps.into_iter().map(StepView::of).collect() }))
}

//! Retrieve: what an archive has in archive tiers is found before it is read, asked for all at once, and awaited.
//!
//! Whether it is asked for, and on which terms, the archive's handle says (`crates/engine/src/steps/away.rs`). A crash, or
//! whoever stops the command, leaves objects on their way: given again, it finds them so, and asks for nothing twice.
//! Laws: I9 (listings of the days that are asked for), I10, I11.

use crate::error::{PortResult, Retry};
use crate::format::archived::cause_of;
use crate::limits::{
    COMMAND_KEYS_IN_FLIGHT, RETRIEVAL_LOOK_EVERY, RETRIEVAL_LOOK_FIRST, RETRIEVAL_ROUNDS, RETRIEVAL_WAIT_MAX,
};
use crate::ports::clock::Clock;
use crate::ports::objects::{Head, ObjectRead, Reach};
use crate::ports::progress::Progress;
use crate::report::chain;
use crate::steps::archived_names::{Days, days, of_day};
use crate::steps::away::may_be_away;
use crate::steps::originals::is_unreadable;
use crate::steps::packs::{self, Names, Pack, PackPlace};
use crate::wrap::unpacked::Unpacked;
use futures_util::{StreamExt, TryStreamExt, stream};
use lifecycle::archive::{Cause, ServiceName};
use lifecycle::ids::ObjectKey;
use lifecycle::time::SpanMs;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Notes what some days (prefixes of names) have in archive tiers: their packs, and the objects that no pack has. Of a day whose packs lie there,
/// the objects are looked at once those can be read.
pub async fn note_days(
    archive: &Unpacked,
    service: &ServiceName,
    days: &[String],
    cause: Option<Cause>,
    cancel: &CancellationToken,
) -> PortResult<()> {
    for day in days {
        if cancel.is_cancelled() {
            return Ok(());
        }
        let date = date_of(service, day);
        if !note_packs(archive, service, date).await? {
            note_objects(archive, service, date, cause).await?;
        }
    }
    Ok(())
}

/// Notes the packs of some days that lie in archive tiers.
pub async fn note_packs_of_days(archive: &Unpacked, service: &ServiceName, range: Days) -> PortResult<()> {
    for day in days(archive, service, range).await? {
        note_packs(archive, service, date_of(service, &day)).await?;
    }
    Ok(())
}

/// The date in the prefix of a day's names.
pub(super) fn date_of<'a>(service: &ServiceName, day: &'a str) -> &'a str {
    day[service.as_str().len() + 1..].trim_end_matches('/')
}

/// Notes the packs of a day (`yyyy/mm/dd`) that lie in archive tiers and are needed; whether any is.
pub async fn note_packs(archive: &Unpacked, service: &ServiceName, day: &str) -> PortResult<bool> {
    let mut may_be = packs::of_day(archive.objects(), service, day).await?;
    may_be.retain(|(_, listed)| may_be_away(listed));
    if may_be.is_empty() {
        return Ok(false);
    }
    match archive.packs(service, day).await {
        // The others are passed over. One that was opened may have gone there since.
        Ok(packs) => {
            let opened: BTreeSet<&PackPlace> = packs.iter().map(|pack| &pack.place).collect();
            may_be.retain(|(place, _)| opened.contains(place));
        }
        Err(error) if is_unreadable(&error) => {}
        Err(error) => return Err(error),
    }
    let mut is_away = false;
    for (_, listed) in &may_be {
        is_away |= archive.away().look_at(listed, |_| true).await?;
    }
    Ok(is_away)
}

async fn note_objects(archive: &Unpacked, service: &ServiceName, day: &str, cause: Option<Cause>) -> PortResult<()> {
    loop {
        let packs = match archive.packs(service, day).await {
            // They have just gone there; or the day will say what is damaged when it is read.
            Err(error) if is_unreadable(&error) => return Ok(()),
            packs => packs?,
        };
        match note_left_over(archive, &packs, &format!("{service}/{day}/"), cause).await {
            // What is noted twice is noted once.
            Err(error) if archive.pass_over(service, day, &error).await? => {}
            Err(error) if is_unreadable(&error) => return Ok(()),
            noted => return noted,
        }
    }
}

/// Notes the objects of a day (a prefix of names) that those packs do not have.
async fn note_left_over(archive: &Unpacked, packs: &[Arc<Pack>], day: &str, cause: Option<Cause>) -> PortResult<()> {
    let packed: Vec<&Pack> = packs.iter().map(AsRef::as_ref).collect();
    let (mut names, mut after) = (Names::of(archive.objects(), &packed), None);
    let is_wanted = |head: &Head| cause.is_none() || cause_of(head) == cause;
    loop {
        let page = of_day(archive.objects(), day, "", after.as_ref()).await?;
        let mut left = Vec::new();
        for named in page.items {
            if names.find(&named.listed.key).await?.is_none() {
                left.push(named.listed);
            }
        }
        let looks = stream::iter(left).map(|listed| async move { archive.away().look_at(&listed, is_wanted).await });
        looks.buffer_unordered(COMMAND_KEYS_IN_FLIGHT).try_for_each(|_| async { Ok(()) }).await?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Whether and how what is on its way is awaited.
pub struct Patience<'a> {
    /// It is.
    pub wait: bool,
    /// The clock.
    pub clock: &'a dyn Clock,
    /// Who is told how far it is.
    pub progress: &'a dyn Progress,
    /// Who stops it.
    pub cancel: &'a CancellationToken,
}

/// Looks for something, again and again until nothing of it is on its way out of an archive tier, if that is awaited. What is
/// not awaited, or did not come, is left to whoever looked: an error `Archived`.
pub async fn once_readable<T, F: Future<Output = PortResult<T>>>(
    archive: &Unpacked,
    patience: &Patience<'_>,
    look: impl Fn() -> F,
) -> PortResult<T> {
    for _ in 1..RETRIEVAL_ROUNDS {
        let looked = look().await;
        let sum = archive.away().sum();
        if !patience.wait || sum.objects == sum.not_asked || wait_for(archive, patience).await? != Waited::Come {
            return looked;
        }
        archive.away().forget();
    }
    look().await
}

/// How waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// All that was on its way has come.
    Come,
    /// Something has not come within [`RETRIEVAL_WAIT_MAX`].
    Late,
    /// Stopped on request.
    Stopped,
}

/// Waits for what archive tiers were asked for. An outage is waited for, too.
pub async fn wait_for(archive: &Unpacked, patience: &Patience<'_>) -> PortResult<Waited> {
    let Patience { clock, progress, cancel, wait: _ } = patience;
    let mut waiting = archive.away().on_their_way();
    let (all, until) = (waiting.len() as u64, clock.now().plus(RETRIEVAL_WAIT_MAX));
    let mut wait = RETRIEVAL_LOOK_FIRST;
    loop {
        waiting = still_away(archive.objects(), waiting).await?;
        if waiting.is_empty() {
            return Ok(Waited::Come);
        }
        if clock.now() >= until {
            return Ok(Waited::Late);
        }
        progress.at(all - waiting.len() as u64, Some(all), "objects out of an archive tier");
        tokio::select! {
            () = cancel.cancelled() => return Ok(Waited::Stopped),
            () = clock.sleep(wait) => {}
        }
        wait = SpanMs((wait.0 * 2).min(RETRIEVAL_LOOK_EVERY.0));
    }
}

async fn still_away(objects: &dyn ObjectRead, waiting: Vec<ObjectKey>) -> PortResult<Vec<ObjectKey>> {
    let looks = stream::iter(waiting).map(|name| async move {
        match objects.head(&name, None).await {
            Ok(head) => Ok(head.filter(|head| head.reach != Reach::Readable).map(|_| name)),
            // Days of waiting are not lost to a minute's outage.
            Err(error) if error.retry() != Retry::Never => {
                tracing::warn!(%name, "it is looked for again: {}", chain(&error));
                Ok(Some(name))
            }
            Err(error) => Err(error),
        }
    });
    let looked: Vec<Option<ObjectKey>> = looks.buffered(COMMAND_KEYS_IN_FLIGHT).try_collect().await?;
    Ok(looked.into_iter().flatten().collect())
}

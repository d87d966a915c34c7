//! `archive …`: what was archived of deleted records, and putting it back.

use super::archive_drop::drop_object;
use super::archive_query::{self, Asked};
use super::archive_self_test::self_test;
use super::retrieval::{refused, sum_of, told};
use crate::answer::{Answer, Done, ItemView, Listed, ListedRecord, RecordView};
use crate::archiving::Archiving;
use crate::command::{ArchiveAct, RecordDays, RestoreRecordsOf, RetrieveOf, TtlOf};
use crate::exit::Failure;
use crate::feed::{Feed, Frame};
use crate::gone_tables::archiving_of_gone_table;
use crate::instance::Instance;
use crate::limits::SERVICES_NAMED_MAX;
use crate::packing::{packer, to_pack};
use crate::query::{MetOnDisk, SqlCondition};
use engine::config::{ArchiveConfig, Destination, parse_table};
use engine::error::{ErrorKind, PortResult};
use engine::flows::find_record::{Found, Which, find_record};
use engine::flows::pack::PackRequest;
use engine::flows::restore_records::{RecordsRequest, RestoreRecords, Ttl, Wanted};
use engine::flows::retrieve::{note_packs_of_days, once_readable};
use engine::format::archived::cause_of;
use engine::limits::COMMAND_KEYS_IN_FLIGHT;
use engine::ports::objects::{ObjectRead, Page};
use engine::report::chain;
use engine::steps::archived_names::{Days, Named, days, of_day, services};
use engine::steps::away::is_archived;
use engine::steps::condition::Condition;
use engine::wrap::unpacked::Unpacked;
use futures_util::{StreamExt, TryStreamExt, stream};
use lifecycle::archive::{Cause, ServiceName};
use lifecycle::time::{SpanMs, UnixMs};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Does it.
pub(crate) async fn act(
    instance: &Instance,
    act: &ArchiveAct,
    who: &str,
    feed: &Feed,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    match act {
        ArchiveAct::Ls { service, days, cause, retrieve } => {
            let service = known_service(instance, service).await?;
            let wanted = Deleted { service: &service, days: range(*days), cause: cause_named(cause.as_deref())? };
            ls(instance, &wanted, retrieve, feed, cancel).await
        }
        ArchiveAct::Get { service, table, key, at, retrieve } => {
            let service = known_service(instance, service).await?;
            let at_moment = moment(instance, *at);
            let which = Which { service: &service, table: table.as_deref(), key, at: at_moment };
            get(instance, &which, *at, retrieve, feed, cancel).await
        }
        ArchiveAct::Restore(asked) => restore(instance, asked, who, feed, cancel).await,
        ArchiveAct::SelfTest(asked) => self_test(instance, asked, who, feed, cancel).await,
        ArchiveAct::Query { sql, service, days, retrieve } => {
            let service = known_if_named(instance, service.as_deref()).await?;
            let asked = Asked { service: service.as_ref(), retrieve, feed, cancel };
            archive_query::run(instance, sql, *days, &asked).await
        }
        ArchiveAct::Report { service, month, retrieve } => {
            let service = known_if_named(instance, service.as_deref()).await?;
            let asked = Asked { service: service.as_ref(), retrieve, feed, cancel };
            archive_query::report(instance, month, &asked).await
        }
        ArchiveAct::Drop { service, object } => drop_object(instance, service, object, who).await,
        ArchiveAct::Pack { service, days, dry_run } => {
            let service = known_service(instance, service).await?;
            let request = PackRequest { service: service.clone(), days: range(*days), dry_run: *dry_run };
            let mut done = Done::default();
            for archiving in to_pack(of_service(instance, &service).await?) {
                let report = packer(instance, &archiving, who)?.run(&request, feed, cancel).await;
                done.of_archive(service.as_str(), report);
            }
            Ok(Answer::Done(done))
        }
    }
}

/// The same, where one is named at all.
async fn known_if_named(instance: &Instance, name: Option<&str>) -> Result<Option<ServiceName>, Failure> {
    match name {
        Some(name) => known_service(instance, name).await.map(Some),
        None => Ok(None),
    }
}

/// Where there is nothing to look into.
pub(super) const NO_ARCHIVE: &str = "no table's deleted records are archived: make a table at this machine's DynamoDB endpoint, or add an \
                                     [[archive]] to the configuration";

/// A service that some table's records lie under.
pub(super) async fn known_service(instance: &Instance, name: &str) -> Result<ServiceName, Failure> {
    let service = ServiceName::new(name).map_err(Failure::usage)?;
    let known: BTreeSet<ServiceName> =
        instance.all_archivings().iter().map(|archiving| archiving.config.service.clone()).collect();
    if known.contains(&service) || archiving_of_gone_table(instance, &service).await?.is_some() {
        return Ok(service);
    }
    if known.is_empty() {
        return Err(Failure::usage(NO_ARCHIVE));
    }
    let there: Vec<String> = known.iter().map(ServiceName::to_string).collect();
    let mut why = format!("no records are archived under `{name}`; there are: {}", there.join(", "));
    // An outage does not hide what the configuration says.
    let others = archived_services(instance).await.unwrap_or_default();
    let others: Vec<&ServiceName> = others.iter().filter(|other| !known.contains(*other)).collect();
    if others.contains(&&service) {
        why.push_str(
            "; the archive has some from an earlier configuration: give a table's [[archive]] that service to see them",
        );
    } else if !others.is_empty() {
        let others: Vec<String> = others.into_iter().map(ServiceName::to_string).collect();
        write!(why, "; and in the archive, of no table now: {}", others.join(", ")).map_err(Failure::failed)?;
    }
    Err(Failure::usage(why))
}

/// The services that have records in some archive.
async fn archived_services(instance: &Instance) -> Result<BTreeSet<ServiceName>, Failure> {
    let mut seen: Vec<Destination> = Vec::new();
    let mut found = BTreeSet::new();
    for archiving in instance.all_archivings() {
        if !seen.contains(&archiving.config.destination) {
            seen.push(archiving.config.destination.clone());
            found.extend(services(archiving.reader(instance)?.as_ref(), SERVICES_NAMED_MAX).await?);
        }
    }
    Ok(found)
}

/// What is said where a service has no record at all: which ones have.
async fn without_records(instance: &Instance, service: &ServiceName) -> Result<Option<String>, Failure> {
    let there = archived_services(instance).await?;
    if there.contains(service) {
        return Ok(None);
    }
    let there: Vec<String> = there.iter().map(ServiceName::to_string).collect();
    let others = match there.is_empty() {
        true => "no other service has one, either".to_owned(),
        false => format!("there are some of: {}", there.join(", ")),
    };
    Ok(Some(format!(
        "no record of {service} is archived yet ({others}): `afterimage status` says whether its stream is read, `afterimage \
         archive self-test` tries it out"
    )))
}

/// The archives that have records of a service, each once.
async fn archives(
    instance: &Instance,
    service: &ServiceName,
    retrieve: &RetrieveOf,
) -> Result<Vec<Arc<Unpacked>>, Failure> {
    let mut seen: Vec<Destination> = Vec::new();
    let mut readers = Vec::new();
    for archiving in of_service(instance, service).await? {
        if !seen.contains(&archiving.config.destination) {
            seen.push(archiving.config.destination.clone());
            readers.push(retrieve.reader(instance, &archiving)?);
        }
    }
    Ok(readers)
}

pub(super) async fn of_service(instance: &Instance, service: &ServiceName) -> Result<Vec<Arc<Archiving>>, Failure> {
    let all = instance.all_archivings().into_iter();
    let mut of: Vec<Arc<Archiving>> = all.filter(|archiving| archiving.config.service == *service).collect();
    if of.is_empty() {
        of.extend(archiving_of_gone_table(instance, service).await?.map(Arc::new));
    }
    Ok(of)
}

/// The archives of a service, or all that there are: those of this machine's tables that are gone, too.
pub(super) async fn to_look_into(
    instance: &Instance,
    service: Option<&ServiceName>,
) -> Result<Vec<Arc<Archiving>>, Failure> {
    if let Some(service) = service {
        return Ok(to_pack(of_service(instance, service).await?));
    }
    let mut all = instance.all_archivings();
    let known: BTreeSet<ServiceName> = all.iter().map(|archiving| archiving.config.service.clone()).collect();
    for service in archived_services(instance).await?.difference(&known) {
        all.extend(archiving_of_gone_table(instance, service).await?.map(Arc::new));
    }
    Ok(to_pack(all))
}

fn range(RecordDays { from, to }: RecordDays) -> Days {
    Days { from: from.map(UnixMs), until: to.map(UnixMs) }
}

/// Up to which moment; by default all that there is, whatever the clock of the table's service says.
fn moment(instance: &Instance, at: Option<i64>) -> UnixMs {
    at.map_or_else(|| instance.now().plus(SpanMs::days(1)), UnixMs)
}

fn cause_named(word: Option<&str>) -> Result<Option<Cause>, Failure> {
    let unknown = |word: &str| Failure::usage(format!("`{word}` is no cause: write user or ttl"));
    word.map(|word| Cause::parse(word).ok_or_else(|| unknown(word))).transpose()
}

/// Which records.
struct Deleted<'a> {
    service: &'a ServiceName,
    days: Days,
    cause: Option<Cause>,
}

async fn ls(
    instance: &Instance,
    wanted: &Deleted<'_>,
    retrieve: &RetrieveOf,
    feed: &Feed,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let archives = archives(instance, wanted.service, retrieve).await?;
    let mut listed = Listed::default();
    for archive in &archives {
        let of_packs = || note_packs_of_days(archive, wanted.service, wanted.days);
        once_readable(archive, &retrieve.patience(instance, feed, cancel), of_packs).await?;
        for day in days(archive.as_ref(), wanted.service, wanted.days).await? {
            match ls_day(archive.as_ref(), &day, wanted.cause, feed, cancel, &mut listed).await {
                // What else the day has is in the same pages.
                Err(error) if is_archived(&error) => listed.awaits = true,
                // Other days are as they are.
                Err(error) if matches!(error.kind, ErrorKind::Damaged(_)) => {
                    listed.unread.push(ItemView { object: day, why: chain(&error) });
                }
                listed => listed?,
            }
            if listed.cancelled {
                return Ok(Answer::Listed(listed));
            }
        }
    }
    listed.note = match (listed.awaits, listed.keys) {
        (true, _) => told(&sum_of(&archives)),
        (false, 0) if listed.unread.is_empty() => without_records(instance, wanted.service).await?,
        _ => None,
    };
    Ok(Answer::Listed(listed))
}

async fn ls_day(
    archive: &Unpacked,
    day: &str,
    cause: Option<Cause>,
    feed: &Feed,
    cancel: &CancellationToken,
    listed: &mut Listed,
) -> PortResult<()> {
    let mut after = None;
    loop {
        if cancel.is_cancelled() {
            listed.cancelled = true;
            return Ok(());
        }
        let Page { items, next } = of_day(archive, day, "", after.as_ref()).await?;
        for record in with_cause(archive, items, cause).await? {
            listed.keys += 1;
            if !feed.send(Frame::Record(record)).await {
                listed.cancelled = true;
                return Ok(());
            }
        }
        after = next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Names say no cause: where one is asked for, each object is looked at.
async fn with_cause(
    archive: &dyn ObjectRead,
    items: Vec<Named>,
    wanted: Option<Cause>,
) -> PortResult<Vec<ListedRecord>> {
    let looked = stream::iter(items).map(|named| async move {
        let cause = match wanted {
            None => None,
            Some(_) => archive.head(&named.listed.key, None).await?.and_then(|head| cause_of(&head)),
        };
        PortResult::Ok((wanted.is_none() || cause == wanted).then(|| ListedRecord {
            day: named.parsed.day.replace('/', "-"),
            key: named.parsed.key,
            cause: cause.map(|cause| cause.as_str().to_owned()),
            bytes: named.listed.version.size,
            object: named.listed.key.to_string(),
        }))
    });
    looked.buffered(COMMAND_KEYS_IN_FLIGHT).try_filter_map(|record| async { Ok(record) }).try_collect().await
}

async fn get(
    instance: &Instance,
    which: &Which<'_>,
    at: Option<i64>,
    retrieve: &RetrieveOf,
    feed: &Feed,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let (service, key) = (which.service, which.key);
    let then = at.map(|at| format!(" up to {}", UnixMs(at))).unwrap_or_default();
    let archives = archives(instance, service, retrieve).await?;
    let (mut newest, mut is_away): (Option<Found>, bool) = (None, false);
    for archive in &archives {
        let find = || find_record(archive, which);
        match once_readable(archive, &retrieve.patience(instance, feed, cancel), find).await {
            Err(error) if is_archived(&error) => is_away = true,
            found => newest = newest.into_iter().chain(found?).max_by_key(|found| found.record.deleted_at),
        }
    }
    if is_away {
        return Err(refused(&sum_of(&archives)));
    }
    let Some(found) = newest else {
        return Err(Failure::failed(format!(
            "no deletion of `{key}`{then} is archived under {service}: `afterimage archive ls {service}` lists what is"
        )));
    };
    Ok(Answer::Record(Box::new(RecordView {
        object: found.name.to_string(),
        table: found.record.table,
        cause: found.record.cause.as_str().to_owned(),
        deleted_at_ms: found.record.deleted_at.0,
        image: found.record.image.into(),
        record: serde_json::from_str(&found.text)?,
    })))
}

async fn restore(
    instance: &Instance,
    asked: &RestoreRecordsOf,
    who: &str,
    feed: &Feed,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let service = known_service(instance, &asked.service).await?;
    let wanted = match &asked.key {
        Some(key) => Wanted::Key { key: key.clone(), at: moment(instance, asked.at) },
        None => Wanted::Range { days: range(asked.days), cause: cause_named(asked.cause.as_deref())? },
    };
    let ttl = match asked.ttl {
        TtlOf::Keep => Ttl::Keep,
        TtlOf::Strip => Ttl::StripIfOver,
        TtlOf::Extend(ms) => Ttl::Extend(SpanMs(ms)),
    };
    let (overwrite, rate, dry_run) = (asked.overwrite, asked.rate, asked.dry_run);
    let condition = asked.condition.as_deref().map(|text| SqlCondition::new(text, cancel)).transpose()?.map(Arc::new);
    let retrieve = match dry_run {
        true => RetrieveOf { speed: None, wait: false, ..asked.retrieve },
        false => asked.retrieve,
    };
    let wait = retrieve.wait;
    let request = RecordsRequest { service: service.clone(), wanted, overwrite, ttl, rate, dry_run, wait };
    let mut done = Done::default();
    for archiving in one_table(instance, &service, asked.from_table.as_deref()).await? {
        let ArchiveConfig { table, .. } = &archiving.config;
        let to = match &asked.to {
            None => table.clone(),
            Some(to) => parse_table(to).map_err(|(what, fix)| Failure::usage(format!("{what}: {fix}")))?,
        };
        let archive = retrieve.reader(instance, &archiving)?;
        let restore = RestoreRecords {
            archive: archive.clone(),
            from_table: Some(table.name.clone()),
            condition: condition.clone().map(|condition| condition as Arc<dyn Condition>),
            table: Arc::new(instance.services.table(&to).await?),
            journal: instance.journal.clone(),
            clock: instance.clock.clone(),
            who: who.to_owned(),
        };
        let mut report = restore.run(&request, &MetOnDisk::new()?, feed, cancel).await;
        report.notes.extend(told(&archive.away().sum()));
        done.of_table(&table.name, report);
    }
    Ok(Answer::Done(done))
}

/// The table whose records are meant.
async fn one_table(
    instance: &Instance,
    service: &ServiceName,
    name: Option<&str>,
) -> Result<Vec<Arc<Archiving>>, Failure> {
    let all = of_service(instance, service).await?;
    let names: Vec<String> = all.iter().map(|archiving| archiving.config.table.to_string()).collect();
    let is_meant = |archiving: &Arc<Archiving>| {
        let table = &archiving.config.table;
        let name = name.map(|name| name.strip_prefix("dynamodb://").unwrap_or(name));
        name.is_none_or(|name| table.name == name || table.to_string() == name)
    };
    let chosen: Vec<Arc<Archiving>> = all.into_iter().filter(is_meant).collect();
    match (chosen.len(), name) {
        (1, _) => Ok(chosen),
        (0, Some(name)) => Err(Failure::usage(format!(
            "no table `{name}` has its records under {service}; there are: {}",
            names.join(", ")
        ))),
        _ => Err(Failure::usage(format!(
            "several tables have their records under {service} ({}): choose one with --from-table",
            names.join(", ")
        ))),
    }
}

//! What an archive has, by its names alone: the days of a service, and the names of a day. Listings of what is asked for,
//! never of the whole archive: a service with a year of days is asked for each of them once (I9, I11).

use crate::error::PortResult;
use crate::limits::LIST_PAGE;
use crate::ports::objects::{Listed, ObjectRead, Page};
use crate::steps::packs::{self, PACKED, PackPlace};
use crate::wrap::unpacked::Unpacked;
use jiff::Zoned;
use jiff::tz::TimeZone;
use lifecycle::archive::{Parsed, ServiceName, day_prefix, parse};
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;
use std::collections::BTreeSet;

/// Bytes of a key that every name of it begins with: a longer one may be cut.
const KEPT_BYTES: usize = 512;

/// Which days (UTC), both inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Days {
    /// From the day of this moment on.
    pub from: Option<UnixMs>,
    /// Up to the day of this moment.
    pub until: Option<UnixMs>,
}

/// An archived record, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The object.
    pub listed: Listed,
    /// What its name says.
    pub parsed: Parsed,
}

/// The services that have records in an archive, packed or not, by their names; at most so many. Each takes a request or two,
/// and so does each object of others among the packs.
pub async fn services(archive: &dyn ObjectRead, most: usize) -> PortResult<Vec<ServiceName>> {
    let (mut found, mut after) = (Vec::new(), None);
    while found.len() < most {
        let Page { items, next } = archive.list("", after.as_ref(), 1).await?;
        let Some(listed) = items.into_iter().next() else {
            match next {
                Some(next) => after = Some(next),
                None => return Ok(found),
            }
            continue;
        };
        let of_pack =
            PackPlace::parse(&listed.key).map(|pack| (format!("{PACKED}service={}", pack.service), pack.service));
        let of_record = || {
            parse(&listed.key).map(|Parsed { service, day, .. }| {
                // Packs lie behind the years of a service of that name.
                let is_among_packs = PACKED.trim_end_matches('/') == service.as_str();
                let year = day.split('/').next().filter(|_| is_among_packs);
                (year.map_or(service.to_string(), |year| format!("{PACKED}{year}")), service)
            })
        };
        after = Some(match of_pack.or_else(of_record) {
            Some((folder, service)) => {
                if !found.contains(&service) {
                    found.push(service);
                }
                behind(&folder)
            }
            None if listed.key.as_str().starts_with(PACKED) => listed.key,
            // What is somebody else's is passed over with all that lies beside it.
            None => match listed.key.as_str().split_once('/') {
                Some((folder, _)) if !folder.is_empty() => behind(&format!("{folder}/")),
                _ => listed.key,
            },
        });
    }
    Ok(found)
}

/// The days of a service that have records, packed or not, oldest first, as prefixes of names: `service/yyyy/mm/dd/`.
pub async fn days(archive: &Unpacked, service: &ServiceName, range: Days) -> PortResult<Vec<String>> {
    let objects = days_of_objects(archive.objects(), service, range, usize::MAX).await?;
    let packed = days_of_packs(archive.objects(), service, range, usize::MAX).await?;
    let all: BTreeSet<String> = objects.into_iter().chain(packed).collect();
    Ok(all.into_iter().collect())
}

/// The days of a service that may have records, newest first, from that moment back: whether they have any is not asked.
pub async fn days_back_from(archive: &Unpacked, service: &ServiceName, from: UnixMs) -> PortResult<Vec<String>> {
    let all = Days::default();
    let objects = days_of_objects(archive.objects(), service, all, 1).await?;
    let packed = days_of_packs(archive.objects(), service, all, 1).await?;
    let Some(oldest) = objects.into_iter().chain(packed).min() else { return Ok(Vec::new()) };
    let date = Zoned::new(from.timestamp(), TimeZone::UTC).date();
    let back = std::iter::successors(Some(date), |date| date.yesterday().ok());
    let named = back.map(|date| format!("{service}/{}/", date.strftime("%Y/%m/%d")));
    Ok(named.take_while(|day| *day >= oldest).collect())
}

/// The days that have packs; the first `most`.
async fn days_of_packs(
    archive: &dyn ObjectRead,
    service: &ServiceName,
    range: Days,
    most: usize,
) -> PortResult<Vec<String>> {
    let bound = |at: Option<UnixMs>| at.map(|at| day_prefix(service, at));
    let (first, last) = (bound(range.from), bound(range.until));
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let Page { items, next } = packs::list(archive, service, after.as_ref(), LIST_PAGE).await?;
        for (place, _) in items {
            let day = format!("{service}/{}/", place.day);
            if last.as_ref().is_some_and(|last| day > *last) || found.len() == most {
                return Ok(found);
            }
            if first.as_ref().is_none_or(|first| day >= *first) && found.last() != Some(&day) {
                found.push(day);
            }
        }
        after = next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

/// The days of which there are objects; the first `most`.
pub async fn days_of_objects(
    archive: &dyn ObjectRead,
    service: &ServiceName,
    days: Days,
    most: usize,
) -> PortResult<Vec<String>> {
    let prefix = format!("{service}/");
    let last = days.until.map(|until| day_prefix(service, until));
    let mut found = Vec::new();
    // Before the first name of the first day; what has no name of a day is passed over.
    let mut after = days.from.map(|from| before(&day_prefix(service, from)));
    loop {
        let Page { items, next } = archive.list(&prefix, after.as_ref(), 1).await?;
        let Some(listed) = items.into_iter().next() else {
            match next {
                Some(next) => after = Some(next),
                None => return Ok(found),
            }
            continue;
        };
        if last.as_ref().is_some_and(|last| listed.key.as_str() > behind(last).as_str()) {
            return Ok(found);
        }
        let Some(parsed) = parse(&listed.key) else {
            after = Some(listed.key);
            continue;
        };
        let day = format!("{prefix}{}/", parsed.day);
        after = Some(behind(&day));
        found.push(day);
        if found.len() == most {
            return Ok(found);
        }
    }
}

/// One page of the records of a day whose names begin with that part of a key.
pub async fn of_day(
    archive: &dyn ObjectRead,
    day: &str,
    key: &str,
    after: Option<&ObjectKey>,
) -> PortResult<Page<Named>> {
    let start = &key[..key.floor_char_boundary(KEPT_BYTES)];
    let Page { items, next } = archive.list(&format!("{day}{start}"), after, LIST_PAGE).await?;
    let named = items.into_iter().filter_map(|listed| Some(Named { parsed: parse(&listed.key)?, listed }));
    Ok(Page { items: named.collect(), next })
}

/// All names of one key in a day.
pub async fn of_key(archive: &dyn ObjectRead, day: &str, key: &str) -> PortResult<Vec<Named>> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = of_day(archive, day, key, after.as_ref()).await?;
        found.extend(page.items.into_iter().filter(|named| named.parsed.is_of(key)));
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

/// All names of a day whose key looks like that one's.
pub async fn of_shown(archive: &dyn ObjectRead, day: &str, like: &Parsed) -> PortResult<Vec<Named>> {
    let (wanted, mut found, mut after) = (like.key_hash(), Vec::new(), None);
    loop {
        let page = of_day(archive, day, &like.key, after.as_ref()).await?;
        found.extend(page.items.into_iter().filter(|named| named.parsed.key_hash() == wanted));
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

/// A key before all that begin with the prefix, and after all others that are before those.
fn before(prefix: &str) -> ObjectKey {
    let end = prefix.trim_end_matches('/');
    ObjectKey::new(end).expect("a day's prefix is short")
}

/// A key behind all names of the day: `0` is the character after `/`.
fn behind(day: &str) -> ObjectKey {
    ObjectKey::new(format!("{}0", day.trim_end_matches('/'))).expect("a day's prefix is short")
}

//! Pack: records in Parquet are found as the objects that they were; each once, whatever dies or runs twice; and an object
//! goes only long after its pack was read back, and only if it is what was packed.

use super::archive::{archive_through, told};
use super::restore_records::{archived, day, service};
use crate::world::{World, key};
use engine::error::ErrorKind;
use engine::flows::pack::{PackRecords, PackRequest};
use engine::limits::ORIGINALS_STAY_FOR;
use engine::memory::bucket::collect;
use engine::ports::objects::{Attributes, ObjectRead, Onto, Page};
use engine::ports::progress::Silent;
use engine::report::Report;
use engine::steps::archived_names::{Days, days, services};
use engine::steps::packs::{Pack, of_day};
use engine::steps::purge::Purger;
use engine::wrap::faults::{Death, Faults};
use engine::wrap::tap::{Fate, Probe, Tap};
use engine::wrap::unpacked::Unpacked;
use lifecycle::archive::Cause;
use lifecycle::ids::ObjectKey;
use lifecycle::time::SpanMs;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A packer in the hands of a process whose calls that probe decides on.
fn packer(world: &World, probe: Arc<dyn Probe>, removes: bool) -> PackRecords {
    let tap = Tap::new(probe.clone());
    PackRecords {
        archive: world.write_destination("archive", probe),
        purger: removes.then(|| Purger::new(tap.purge("originals", world.memory.destination.clone()))),
        journal: tap.journal("journal", world.memory.journal.clone()),
        clock: world.memory.clock.clone(),
        scratch: std::env::temp_dir(),
        who: "service".to_owned(),
    }
}

fn request() -> PackRequest {
    PackRequest { service: service(), days: Days::default(), dry_run: false }
}

pub(super) async fn pack(world: &World, removes: bool) -> Report {
    packer(world, world.faults.clone(), removes).run(&request(), &Silent, &CancellationToken::new()).await
}

pub(super) async fn packed(world: &World) -> Report {
    let report = pack(world, false).await;
    assert_eq!(report.failures, 0, "{:?}", report.failed);
    report
}

pub(super) fn unpacked(world: &World) -> Unpacked {
    Unpacked::new(world.memory.destination.clone())
}

/// Archived records by their names, as somebody finds them who does not know of packs.
pub(super) async fn found(archive: &dyn ObjectRead) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut after) = (BTreeMap::new(), None);
    loop {
        let Page { items, next } = archive.list("service/", after.as_ref(), 3).await.unwrap();
        for listed in items {
            let object = archive.get(&listed.key, None, None).await.unwrap().unwrap();
            assert_eq!(object.head.version, listed.version);
            let again = found.insert(listed.key.to_string(), collect(object.body).await.unwrap().to_vec());
            assert!(again.is_none(), "{} is listed twice", listed.key);
        }
        after = next;
        if after.is_none() {
            return found;
        }
    }
}

pub(super) async fn originals(world: &World) -> BTreeMap<String, Vec<u8>> {
    found(world.memory.destination.as_ref()).await
}

pub(super) async fn some() -> World {
    archived(&[
        ("a", day(0), Cause::User),
        ("b", day(0), Cause::Ttl),
        ("a", day(0).plus(SpanMs::hours(3)), Cause::User),
        ("a", day(2), Cause::User),
        ("z/..", day(2), Cause::User),
        ("a", day(40), Cause::Ttl),
    ])
    .await
}

/// How often each record stands in packs.
async fn times_packed(world: &World) -> BTreeMap<String, usize> {
    let archive = world.memory.destination.as_ref();
    let mut times = BTreeMap::new();
    for n in 0..50 {
        for (place, listed) in
            of_day(archive, &service(), &day(n).timestamp().strftime("%Y/%m/%d").to_string()).await.unwrap()
        {
            let pack = Pack::open(archive, place, &listed).await.unwrap().unwrap();
            for group in 0..pack.footer.groups() {
                let columns = [engine::format::packed::Column::Object];
                let rows = pack.read(archive, group, &columns).await.unwrap();
                for row in 0..rows.rows {
                    *times.entry(rows.text(columns[0], row).unwrap().to_owned()).or_default() += 1;
                }
            }
        }
    }
    times
}

#[tokio::test]
async fn what_is_packed_is_found_as_before_with_its_objects_and_without_them() {
    let world = some().await;
    let before = originals(&world).await;
    let report = packed(&world).await;
    assert_eq!((report.counted("packed"), report.counted("packs")), (6, 3));
    assert_eq!((found(&unpacked(&world)).await, originals(&world).await), (before.clone(), before.clone()));
    // A day later another record of the first day comes late; only that one is packed.
    let late = key("service/2026/11/21/late.json");
    let text = String::from_utf8(before["service/2026/11/21/b.json"].clone()).unwrap().replace("\"b\"", "\"late\"");
    world.memory.destination.store(&late, text.clone().into(), Attributes::default(), &Onto::Nothing);
    assert_eq!(packed(&world).await.counted("packed"), 1);
    assert_eq!(packed(&world).await.counted("packed"), 0);
    let mut all = before;
    all.insert(late.to_string(), text.into_bytes());
    for name in all.keys() {
        world.memory.destination.delete_object(&key(name));
    }
    let unpacked = unpacked(&world);
    assert_eq!(found(&unpacked).await, all);
    let of = async |from, until| days(&unpacked, &service(), Days { from, until }).await.unwrap();
    assert_eq!(of(None, None).await, ["service/2026/11/21/", "service/2026/11/23/", "service/2026/12/31/"]);
    assert_eq!(of(Some(day(1)), Some(day(39))).await, ["service/2026/11/23/"]);
    assert_eq!(unpacked.head(&late, None).await.unwrap().unwrap().metadata["afterimage-cause"], "ttl");
    assert_eq!(unpacked.head(&key("service/2026/11/21/no.json"), None).await.unwrap(), None);
}

/// Objects and rows of packs, mixed in any way, are one listing: each page is what a listing of objects would have.
#[tokio::test]
async fn a_listing_over_objects_and_packs_is_that_of_all_objects() {
    let deletions: Vec<(String, _)> = (0..60).map(|n| (format!("k{}", n % 17), day(n % 4))).collect();
    let deletions: Vec<_> = deletions.iter().map(|(key, at)| (key.as_str(), *at, Cause::User)).collect();
    let world = archived(&deletions).await;
    let whole = archived(&deletions).await;
    packed(&world).await;
    for (n, name) in originals(&world).await.keys().enumerate() {
        if n % 3 > 0 {
            world.memory.destination.delete_object(&key(name));
        }
    }
    let (mixed, whole) = (unpacked(&world), whole.memory.destination.clone());
    let names: Vec<String> = originals_of(whole.as_ref()).await;
    let prefixes = ["service/", "service/2026/11/22/", "service/2026/11/22/k1", "service/2026/1", "service/2027"];
    let afters = names.iter().map(String::as_str).chain(["service/2026/11/22", "service/2026/11/220", "a", "z"]);
    for after in afters.map(|name| Some(key(name))).chain([None]) {
        for prefix in prefixes {
            for limit in [1, 2, 7, 1_000] {
                let pages = (
                    mixed.list(prefix, after.as_ref(), limit).await.unwrap(),
                    whole.list(prefix, after.as_ref(), limit).await.unwrap(),
                );
                let names = |page: &Page<_>| -> Vec<ObjectKey> {
                    page.items.iter().map(|listed: &engine::ports::objects::Listed| listed.key.clone()).collect()
                };
                let what = format!("{prefix} after {after:?}, {limit}");
                assert!(pages.0.items.len() <= limit, "{what}");
                // A page may be shorter than it could be, as long as another one follows.
                assert!(names(&pages.1).starts_with(&names(&pages.0)), "{what}");
                assert!(pages.0.next.is_some() || names(&pages.0) == names(&pages.1), "{what}");
                assert!(!pages.0.items.is_empty() || pages.1.items.is_empty(), "{what}");
            }
        }
    }
}

async fn originals_of(archive: &dyn ObjectRead) -> Vec<String> {
    found(archive).await.into_keys().collect()
}

#[tokio::test]
async fn a_packer_that_dies_anywhere_leaves_every_record_found_and_the_next_one_packs_each_once() {
    for k in 1.. {
        let world = some().await;
        let before = originals(&world).await;
        let faults = Arc::new(Faults::die_at(k, Death::ALL[k % 4]));
        let (dying, cancel, asked) = (packer(&world, faults.clone(), false), CancellationToken::new(), request());
        let is_dead = tokio::select! {
            biased;
            () = faults.death() => true,
            _ = dying.run(&asked, &Silent, &cancel) => faults.is_dead(),
        };
        for late in faults.take_late() {
            late.await;
        }
        assert_eq!(found(&unpacked(&world)).await, before, "k = {k}");
        packed(&world).await;
        assert_eq!(found(&unpacked(&world)).await, before, "k = {k}");
        assert_eq!(times_packed(&world).await, before.keys().map(|name| (name.clone(), 1)).collect(), "k = {k}");
        if !is_dead {
            assert!(k > 6, "it has hardly died: {k}");
            return;
        }
    }
}

#[tokio::test]
async fn two_who_pack_at_once_pack_every_record_once() {
    let world = some().await;
    let all = originals(&world).await.into_keys().map(|name| (name, 1)).collect();
    let (one, other) = tokio::join!(pack(&world, false), pack(&world, false));
    assert_eq!((one.failures, other.failures), (0, 0), "{:?} {:?}", one.failed, other.failed);
    assert_eq!(one.counted("packed") + other.counted("packed"), 6);
    assert_eq!(times_packed(&world).await, all);
}

#[tokio::test]
async fn originals_go_thirty_days_after_their_pack_was_read_back_and_only_what_was_packed() {
    let world = some().await;
    let before = originals(&world).await;
    assert_eq!(pack(&world, true).await.counted("originals-removed"), 0);
    world.advance(ORIGINALS_STAY_FOR);
    // One is another by now, one came late.
    let (changed, late) = (key("service/2026/11/23/a.json"), key("service/2026/11/23/late.json"));
    for name in [&changed, &late] {
        let other = b"somebody else's".as_slice().into();
        world.memory.destination.store(name, other, Attributes::default(), &Onto::Anything);
    }
    let kept = pack(&world, false).await;
    assert_eq!((kept.counted("originals-removed"), originals(&world).await.len()), (0, 7), "it is not asked for");
    let report = pack(&world, true).await;
    assert_eq!((report.counted("originals-removed"), report.counted("originals-changed")), (5, 1));
    assert_eq!(report.failures, 0, "{:?}", report.failed);
    assert_eq!(originals(&world).await.into_keys().collect::<Vec<_>>(), [changed.as_str(), late.as_str()]);
    assert_eq!(world.journal().iter().filter(|action| **action == "purge").count(), 5);
    let mut found = found(&unpacked(&world)).await;
    for name in [&changed, &late] {
        assert_eq!(found.remove(name.as_str()).unwrap(), b"somebody else's");
    }
    assert!(found.iter().all(|(name, body)| before[name] == *body) && found.len() == 5, "{:?}", found.keys());
}

/// Dead letters have no age: a deletion that is archived long after its day does not take the name of one whose object has gone.
#[tokio::test]
async fn a_deletion_that_comes_after_the_originals_went_takes_no_name_of_a_pack() {
    let world = some().await;
    let before = originals(&world).await;
    packed(&world).await;
    world.advance(ORIGINALS_STAY_FOR);
    assert_eq!(pack(&world, true).await.counted("originals-removed"), 6);
    let late = archive_through(&world, world.faults.clone()).for_late_ones();
    let again = told(|stream| {
        stream.delete("0", "b", day(0), Cause::User);
    })
    .await;
    for _ in 0..2 {
        assert!(late.archive_again(&again[0]).await.unwrap().is_ok());
    }
    let now = found(&unpacked(&world)).await;
    assert_eq!(now.len(), before.len() + 1, "{:?}", now.keys());
    assert!(before.iter().all(|(name, body)| now[name] == *body));
}

#[tokio::test]
async fn nothing_goes_whose_pack_is_damaged_and_that_is_told() {
    let world = some().await;
    let before = originals(&world).await;
    packed(&world).await;
    world.advance(ORIGINALS_STAY_FOR);
    let name = key("packed/service=service/day=2026-11-21/000001.parquet");
    let whole = world.memory.destination.contents()[&name].bytes.to_vec();
    for place in [10, whole.len() / 3, whole.len() - 20] {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x55;
        world.memory.destination.damage(&name, damaged);
        let report = pack(&world, true).await;
        assert_eq!(report.failures, 1, "byte {place}: {:?}", report.failed);
        assert!(report.failed[0].object.contains("2026/11/21"), "{:?}", report.failed);
        let left = originals(&world).await;
        let of_day = |name: &String| name.starts_with("service/2026/11/21/");
        assert_eq!(left.keys().filter(|name| of_day(name)).count(), 3, "byte {place}");
    }
    // Without the damaged pack and its note its records are packed anew.
    for name in [name.as_str(), ".afterimage/packs/service/2026-11-21/000001.json"] {
        world.memory.destination.delete_object(&key(name));
    }
    assert_eq!(packed(&world).await.counted("packed"), 3);
    assert_eq!(found(&unpacked(&world)).await, before);
}

/// What is in a damaged pack is there as objects, too, as long as none of them went: they are found as before, and the pack's
/// rows help where an object is damaged.
#[tokio::test]
async fn a_damaged_pack_is_not_needed_where_its_originals_are_and_a_whole_one_helps_where_they_are_not() {
    let world = some().await;
    let before = originals(&world).await;
    packed(&world).await;
    let name = key("packed/service=service/day=2026-11-21/000001.parquet");
    let whole = world.memory.destination.contents()[&name].bytes.to_vec();
    world.memory.destination.damage(&name, whole[..whole.len() - 30].to_vec());
    let archive = unpacked(&world);
    assert_eq!(found(&archive).await, before);
    assert_eq!(archive.damaged().keys().collect::<Vec<_>>(), [&name]);
    world.logs.expect("a pack that is not needed to read its records is damaged");
    // Once its originals began to go, it is needed: then nobody may take what is left for all that there is.
    let note = key(".afterimage/packs/service/2026-11-21/000001.json");
    let text = String::from_utf8(world.memory.destination.contents()[&note].bytes.to_vec()).unwrap();
    let going = text.replace("\"whole\"", "\"going\"");
    assert_ne!(text, going);
    world.memory.destination.store(&note, going.into(), Attributes::default(), &Onto::Anything);
    let listed = unpacked(&world).list("service/2026/11/21/", None, 10).await;
    assert!(matches!(listed.unwrap_err().kind, ErrorKind::Damaged(_)));
    world.memory.destination.damage(&name, whole);
    let object = "service/2026/11/21/b.json";
    let damaged = ErrorKind::Damaged("its data file is missing".to_owned());
    let faults = Arc::new(Faults::default());
    faults.at("archive.get", 1, Fate::FailBefore(damaged));
    let archive = Unpacked::new(world.write_destination("archive", faults));
    let read = archive.get(&key(object), None, None).await.unwrap().unwrap();
    assert_eq!(collect(read.body).await.unwrap().to_vec(), before[object]);
    world.logs.expect("a damaged object is read from its pack");
}

#[tokio::test]
async fn a_damaged_record_is_named_and_stays_and_the_others_are_packed() {
    let world = some().await;
    let name = key("service/2026/11/21/b.json");
    world.memory.destination.damage(&name, b"{ not what it was".as_slice().to_vec());
    let foreign = key("service/2026/11/21/foreign.json");
    world.memory.destination.store(&foreign, "hello".into(), Attributes::default(), &Onto::Anything);
    let report = pack(&world, true).await;
    assert_eq!((report.counted("packed"), report.failures), (5, 1));
    assert_eq!(report.failed[0].object, name.as_str());
    world.advance(ORIGINALS_STAY_FOR);
    pack(&world, true).await;
    assert_eq!(originals(&world).await.into_keys().collect::<Vec<_>>(), [name.as_str(), foreign.as_str()]);
}

#[tokio::test]
async fn a_store_that_does_not_answer_ends_the_day_and_no_pack_is_half() {
    let world = some().await;
    let before = originals(&world).await;
    world.faults.at("archive.get", 2, Fate::FailBefore(ErrorKind::Unavailable));
    let report = pack(&world, false).await;
    assert_eq!(report.failures, 1, "{:?}", report.failed);
    assert_eq!(packed(&world).await.counted("packed") + report.counted("packed"), 6);
    assert_eq!(found(&unpacked(&world)).await, before);
}

/// Of a year of packed days, a look at one record of one day reads that day's packs, and no others.
#[tokio::test]
async fn a_record_is_found_by_reading_its_day_alone() {
    let deletions: Vec<_> = (0..365).map(|n| ("a", day(n), Cause::User)).collect();
    let world = archived(&deletions).await;
    packed(&world).await;
    for name in originals(&world).await.keys() {
        world.memory.destination.delete_object(&key(name));
    }
    let archive = Unpacked::new(world.write_destination("archive", world.recorder.clone()));
    let at = day(200).plus(SpanMs::hours(2));
    let (service, key) = (service(), "a");
    let which = engine::flows::find_record::Which { service: &service, table: None, key, at };
    let found = engine::flows::find_record::find_record(&archive, &which).await.unwrap().unwrap();
    assert_eq!(found.name.as_str(), "service/2027/06/09/a.json");
    let counts = world.recorder.counts();
    // The end of a pack, and of a row group the columns of names and of the record; three more days are looked at side by side.
    assert!(counts["archive.get"] <= 30 && counts["archive.list"] <= 30, "{counts:?}");
}

#[tokio::test]
async fn a_service_whose_records_are_all_in_packs_is_known() {
    let world = archived(&[("a", day(0), Cause::User)]).await;
    packed(&world).await;
    world.advance(ORIGINALS_STAY_FOR);
    world.advance(SpanMs::days(1));
    assert_eq!(pack(&world, true).await.counted("originals-removed"), 1);
    // A service may be called as the folder of the packs is.
    for name in ["packed/0-foreign", "packed/2026/11/21/x.json", "packed/2027/11/21/x.json", "zoo/2026/11/21/x.json"] {
        world.memory.destination.store(&key(name), "x".into(), Attributes::default(), &Onto::Anything);
    }
    let names = services(world.memory.destination.as_ref(), 9).await.unwrap();
    assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["packed", "service", "zoo"]);
}

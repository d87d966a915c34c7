//! Storms over policies in services: random writes and deletions, faults of the network and the services, two daemons on
//! one queue and one catalog, of which one is killed again and again. At the end everything is as if nothing had happened;
//! the simulation's oracle judges it.

use crate::process::{Folder, Serving};
use crate::proxy::Proxy;
use crate::services::{Cloud, IN_THE_CLOUD, Through, serve, until};
use engine::conformance::at_rest::{Check, Deed, KeyAtRest, no_object_without_row};
use lifecycle::ids::ObjectKey;
use std::collections::{BTreeMap, VecDeque};

const KEYS: usize = 6;
const STEPS: usize = 72;
/// One of the daemons is killed after so many steps.
const KILLED_EVERY: usize = 18;

/// What the bucket's clients did: the versions of each key since it was last deleted, oldest first.
type Told = BTreeMap<String, Vec<String>>;

/// A source of numbers (an LCG's upper bits): the same seed gives the same storm.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// One write or deletion.
fn step(cloud: &Cloud, dice: &mut Dice, n: usize, told: &mut Told) {
    let key = format!("folder {}/k+{}", dice.below(2), dice.below(KEYS / 2));
    if dice.below(4) == 0 {
        cloud.delete(&key);
        told.remove(&key);
    } else {
        let text = format!("step {n}");
        cloud.put(&key, &text);
        told.entry(key).or_default().push(text);
    }
}

/// A daemon that reaches its services through a proxy of its own.
fn daemon(cloud: &Cloud, policy: &str, seed: u64) -> (Folder, Proxy) {
    let (folder, proxy) = (Folder::new(), Proxy::before(cloud.url(), seed));
    cloud.configure_at(&folder, policy, proxy.url());
    (folder, proxy)
}

/// Serves from calm to storm: a start that meets a fault may be refused, and is not what is looked at here.
fn serve_into_the_storm(folder: &Folder, proxy: &Proxy) -> Serving {
    proxy.storm(false);
    let serving = serve(folder);
    proxy.storm(true);
    serving
}

fn handled(folder: &Folder) {
    folder.wait("an empty queue", |status| status["queue"]["waiting"] == 0);
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn two_daemons_on_one_queue_and_catalog_lose_nothing_though_one_is_killed_again_and_again() {
    let cloud = Cloud::new(Through::Notification);
    // With versions every one of them can be copied, however late.
    cloud.versions("docs");
    let (steady, steadys) = daemon(&cloud, IN_THE_CLOUD, 1);
    let (shaken, shakens) = daemon(&cloud, IN_THE_CLOUD, 2);
    let _serving = serve_into_the_storm(&steady, &steadys);
    let mut victim = serve_into_the_storm(&shaken, &shakens);
    let (mut dice, mut told) = (Dice(7), Told::new());
    let mut n = 0;
    // A calm storm shows nothing: on a machine that is fast, or busy, it takes some more steps.
    while n < STEPS || steadys.faults() + shakens.faults() <= 10 {
        n += 1;
        assert!(n < 50 * STEPS, "the proxies make no faults");
        step(&cloud, &mut dice, n, &mut told);
        if n % KILLED_EVERY == 0 {
            victim.kill();
            victim = serve_into_the_storm(&shaken, &shakens);
        }
    }
    [&steadys, &shakens].iter().for_each(|proxy| proxy.storm(false));
    handled(&steady);

    let report = &steady.json(&["reconcile"])["reports"][0];
    assert_eq!((&report["counts"]["gap"], &report["failures"]), (&0.into(), &0.into()), "{report:#}\n{}", steady.log());
    steady.ok(&["clean", "--now"]);
    let mut wanted: Vec<String> = told.values().flat_map(|versions| versions.iter().rev().take(3).cloned()).collect();
    wanted.sort();
    let mut kept: Vec<String> = cloud.objects("copies").into_values().collect();
    kept.sort();
    assert_eq!(kept, wanted, "{told:#?}\n{}\n{}", steady.log(), shaken.log());
    let active: u64 = told.keys().map(|key| rows(&steady, key)).sum();
    assert_eq!(active, wanted.len() as u64, "rows and objects, one to one");
    assert_eq!(steady.json(&["status"])["queue"]["dead_letters"], 0, "{}\n{}", steady.log(), shaken.log());
}

/// Messages that were told, and are delivered late, in no order, and some of them several times.
#[derive(Default)]
struct Post {
    waiting: VecDeque<String>,
}

impl Post {
    /// Takes what the bucket told, and delivers about half of what waits.
    fn pass(&mut self, cloud: &Cloud, dice: &mut Dice) {
        for told in cloud.take_told() {
            (0..=dice.below(3)).for_each(|_| self.waiting.push_back(told.clone()));
        }
        for _ in 0..self.waiting.len().div_ceil(2) {
            let place = dice.below(self.waiting.len());
            let message = self.waiting.swap_remove_back(place).expect("a place that is there");
            cloud.send(&message);
        }
    }
}

/// What the oracle says of the whole.
fn judge(cloud: &Cloud, deeds: &BTreeMap<String, Vec<Deed>>) -> Check {
    let objects = cloud.objects("copies").into_iter();
    let objects = objects.map(|(key, text)| (ObjectKey::new(key).unwrap(), text.into())).collect();
    let names: BTreeMap<&String, ObjectKey> =
        deeds.keys().map(|key| (key, ObjectKey::new(key.clone()).unwrap())).collect();
    let at_rest = |(key, deeds): (&String, &Vec<Deed>)| KeyAtRest {
        key: &names[key],
        deeds: deeds.clone(),
        current: match deeds.last() {
            Some(Deed::Put { version, bytes }) => Some((version.clone(), bytes.clone())),
            _ => None,
        },
        rows: cloud.rows(&names[key]),
        objects: &objects,
        keep: 3,
        undeleted: false,
    };
    let keys: Vec<KeyAtRest<'_>> = deeds.iter().map(at_rest).collect();
    for key in &keys {
        key.live_has_its_copy()?;
        key.gone_has_no_active()?;
        key.no_more_than_keep()?;
        key.exactly_the_newest()?;
        key.rows_are_whole()?;
    }
    no_object_without_row(&objects, &keys)
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn the_oracle_finds_nothing_wrong_after_late_doubled_and_shuffled_events_faults_and_kills() {
    let cloud = Cloud::new(Through::Test);
    cloud.versions("docs");
    let (steady, steadys) = daemon(&cloud, IN_THE_CLOUD, 21);
    let (shaken, shakens) = daemon(&cloud, IN_THE_CLOUD, 22);
    let serving = serve_into_the_storm(&steady, &steadys);
    let mut victim = serve_into_the_storm(&shaken, &shakens);
    let (mut dice, mut post) = (Dice(23), Post::default());
    let mut deeds: BTreeMap<String, Vec<Deed>> = BTreeMap::new();
    let mut n = 0;
    while n < STEPS || steadys.faults() + shakens.faults() <= 10 {
        n += 1;
        assert!(n < 50 * STEPS, "the proxies make no faults");
        let key = format!("folder {}/k+{}", dice.below(2), dice.below(KEYS / 2));
        let deed = if dice.below(4) == 0 {
            cloud.delete(&key);
            Deed::Removed
        } else {
            let text = format!("step {n}");
            Deed::Put { version: cloud.put(&key, &text), bytes: text.into() }
        };
        deeds.entry(key).or_default().push(deed);
        if n % 4 == 0 {
            post.pass(&cloud, &mut dice);
        }
        if n % KILLED_EVERY == 0 {
            victim.kill();
            victim = serve_into_the_storm(&shaken, &shakens);
        }
    }
    [&steadys, &shakens].iter().for_each(|proxy| proxy.storm(false));
    while !post.waiting.is_empty() {
        post.pass(&cloud, &mut dice);
    }
    handled(&steady);
    // What is left of the killed is taken for left only by one that started later.
    serving.kill();
    let _serving = serve(&steady);
    let report = &steady.json(&["reconcile"])["reports"][0];
    assert_eq!((&report["counts"]["gap"], &report["failures"]), (&0.into(), &0.into()), "{}", steady.log());
    steady.ok(&["clean", "--now"]);
    judge(&cloud, &deeds).unwrap_or_else(|wrong| panic!("{wrong}\n{}\n{}", steady.log(), shaken.log()));
}

fn rows(folder: &Folder, key: &str) -> u64 {
    folder.json(&["history", key])["policies"][0]["copies"].as_array().unwrap().len() as u64
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn a_mirror_at_another_endpoint_is_equal_after_a_storm_of_late_doubled_and_shuffled_events() {
    let (here, there) = (Cloud::new(Through::Notification), Cloud::new(Through::Notification));
    let policy = "source = \"s3://cloud@docs\"\ndestination = \"s3://far@copies\"\nevents = \"sqs://cloud@events\"\n\
                  mode = \"mirror\"";
    let (folder, proxy) = (Folder::new(), Proxy::before(here.url(), 3));
    let far = Proxy::before(there.url(), 4);
    here.configure_at(&folder, policy, proxy.url());
    let file = folder.root().join("cloud.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let (own, policy) = text.split_once("[[policy]]").unwrap();
    let far_service = format!("[[service]]\nname = \"far\"\nendpoint = \"{}\"\n", far.url());
    std::fs::write(&file, format!("{own}{far_service}[[policy]]{policy}")).unwrap();

    let _serving = serve_into_the_storm(&folder, &proxy);
    far.storm(true);
    let (mut dice, mut told) = (Dice(11), Told::new());
    let mut seen: Vec<String> = Vec::new();
    let stormy = || proxy.faults() + far.faults() > 5;
    // On a fast machine the steps are over before much has gone wrong: a calm storm would show nothing.
    for n in (1..=STEPS * 50).take_while(|n| *n <= STEPS || !stormy()) {
        step(&here, &mut dice, n, &mut told);
        if n % 6 == 0 {
            // What was delivered before comes again, in an order of its own.
            seen.extend(told.keys().cloned());
            let place = dice.below(seen.len());
            let key = seen.swap_remove(place);
            here.send(&doubled(&key, if dice.below(2) == 0 { "ObjectRemoved:Delete" } else { "ObjectCreated:Put" }));
        }
    }
    proxy.storm(false);
    far.storm(false);
    handled(&folder);
    assert!(stormy(), "a calm storm shows nothing");
    let wanted: BTreeMap<String, String> =
        told.into_iter().filter_map(|(key, mut texts)| Some((key, texts.pop()?))).collect();
    until(&folder, "the mirror", || there.objects("copies") == wanted);
    assert_eq!(here.objects("docs"), wanted);
    assert_eq!(folder.json(&["reconcile"])["reports"][0]["counts"]["gap"], 0);
}

/// An old event, late.
fn doubled(key: &str, name: &str) -> String {
    let key = key.replace('+', "%2B").replace(' ', "+");
    format!(
        r#"{{"Records":[{{"eventVersion":"2.1","eventTime":"2026-11-21T10:00:00.000Z","eventName":"{name}",
            "s3":{{"bucket":{{"name":"docs"}},"object":{{"key":"{key}","sequencer":"0001","size":1,"eTag":"0"}}}}}}]}}"#
    )
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn a_region_that_is_out_of_reach_for_a_while_costs_nothing_but_time() {
    let cloud = Cloud::new(Through::Notification);
    cloud.versions("docs");
    let (folder, proxy) = daemon(&cloud, IN_THE_CLOUD, 5);
    let _serving = serve(&folder);
    cloud.put("k", "before");
    until(&folder, "the copy", || cloud.objects("copies").len() == 1);
    proxy.away(true);
    for text in ["one", "two", "three"] {
        cloud.put("k", text);
    }
    cloud.put("gone", "soon");
    cloud.delete("gone");
    // Each look takes the time of a request, but asks the service itself.
    until(&folder, "requests that did not arrive", || !cloud.objects("docs").is_empty() && proxy.faults() >= 5);
    proxy.away(false);
    let kept = || {
        let mut texts: Vec<String> = cloud.objects("copies").into_values().collect();
        texts.sort();
        texts
    };
    until(&folder, "the copies", || kept() == ["one", "soon", "three", "two"]);
    handled(&folder);
    let history = folder.json(&["history", "gone"]);
    assert_eq!(history["policies"][0]["copies"][0]["state"], "disowned", "{history:#}");
    assert_eq!(folder.json(&["status"])["queue"]["dead_letters"], 0);
}

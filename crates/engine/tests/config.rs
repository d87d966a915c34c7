//! The configuration: what is refused and in which words, what the defaults are, and that the effective configuration reads
//! back to itself.

use engine::config::schedule::Schedule;
use engine::config::{
    ArchiveConfig, CatalogPlace, Config, Destination, Endpoint, EventChannel, EventsPlace, FeedConfig, FeedTo, Host,
    Packing, PolicyConfig, Remote, ServiceConfig, Source, TablePlace, TablesConfig, Terms, Tier, TierClass, Tiers,
};
use engine::policy::Mode;
use lifecycle::archive::ServiceName;
use lifecycle::breaker::BreakerRule;
use lifecycle::ids::PolicyName;
use lifecycle::keep::Keep;
use lifecycle::order::Basis;
use lifecycle::time::SpanMs;
use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use std::path::{Path, PathBuf};

const FILE: &str = "/etc/afterimage.toml";

/// Messages without the file's name: they begin with the line.
fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new(FILE)).map_err(|error| error.to_string().replace("/etc/afterimage.toml:", ""))
}

/// A sound policy, lines 1 to 4, with more lines.
fn policy_with(lines: &str) -> String {
    format!("[[policy]]\nname = \"docs\"\nsource = \"local://docs\"\ndestination = \"local://docs-copies\"\n{lines}\n")
}

/// Reads cases of the form: input, a line with an arrow, the message; a blank line between cases.
fn cases(table: &str) -> Vec<(&str, &str)> {
    let cases = table.trim().split("\n\n").map(|case| case.split_once("\n=>\n").expect("an arrow")).collect::<Vec<_>>();
    assert!(!cases.is_empty());
    cases
}

#[test]
fn a_bad_line_is_refused_with_its_place_and_the_fix() {
    for (lines, message) in cases(include_str!("config/bad_lines.txt")) {
        assert_eq!(parse(&policy_with(lines)).expect_err(lines), message, "{lines}");
    }
}

#[test]
fn bad_names_and_locations_are_refused() {
    for (places, message) in cases(include_str!("config/bad_places.txt")) {
        let mut words = places.split_whitespace();
        let lines = ["name", "source", "destination"]
            .map(|key| format!("{key} = \"{}\"\n", words.next().expect("three words")));
        assert_eq!(parse(&format!("[[policy]]\n{}", lines.concat())).expect_err(places), message, "{places}");
    }
}

#[test]
fn bad_files_are_refused() {
    for (text, message) in cases(include_str!("config/bad_files.txt")) {
        assert_eq!(parse(text).expect_err(text), message, "{text}");
    }
}

#[test]
fn a_history_and_a_mirror_of_one_bucket_are_two_policies() {
    let mirror =
        "[[policy]]\nname = \"dr\"\nsource = \"local://docs\"\ndestination = \"local:///mnt/dr\"\nmode = \"mirror\"";
    let config = parse(&policy_with(mirror)).expect("sound");
    assert_eq!(config.policies.iter().map(|policy| policy.mode).collect::<Vec<_>>(), [Mode::Copies, Mode::Mirror]);
}

#[test]
fn every_problem_is_named_at_once() {
    let error = parse(&policy_with("keep = 0\ngrace = 3\nclean = \"never\"")).expect_err("three problems");
    assert_eq!(error.matches("fix:").count(), 3, "{error}");
}

#[test]
fn problems_stand_in_the_order_of_the_file() {
    let text = format!("[default_policy]\nkeep = 0\n\n{}", policy_with("grace = 3"));
    let error = parse(&text).expect_err("two problems");
    let place = |what: &str| error.find(what).unwrap_or_else(|| panic!("{what}: {error}"));
    assert!(place("keeps nothing") < place("has no unit"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_an_error_with_a_fix() {
    let error = Config::load(Path::new("/nowhere/afterimage.toml")).expect_err("no such file").to_string();
    assert!(error.starts_with("/nowhere/afterimage.toml: cannot read the configuration: "), "{error}");
    assert!(error.ends_with("fix: name a readable file; `afterimage init` writes one"), "{error}");
}

#[test]
fn the_shortest_configuration_gets_values_to_trust() {
    let config = parse(&policy_with("")).expect("sound");
    assert_eq!(config.data_dir, PathBuf::from("/etc/afterimage-data"));
    assert_eq!(config.endpoint.listen.to_string(), "127.0.0.1:9000");
    let [policy] = &config.policies[..] else { panic!("one policy") };
    assert_eq!(policy.terms, Terms::default());
    assert_eq!(config.default_policy, Some(Terms::default()));
    assert_eq!(config.warnings(), Vec::<String>::new());
}

#[test]
fn the_written_values_are_the_ones_in_force() {
    let text = policy_with(
        "keep = { last = 3, within = \"7d\", daily = 7, weekly = 4, monthly = 12 }\nprotect_for = \"0s\"\ngrace = \"2w\"\n\
         clean = \"30 3 * * *\"\nbreaker = \"off\"",
    );
    let terms = parse(&text).expect("sound").policies[0].terms.clone();
    let keep = Keep { last: 3, within: Some(SpanMs::days(7)), daily: 7, weekly: 4, monthly: 12, ..Keep::default() };
    assert_eq!((terms.keep, terms.grace, terms.breaker), (keep, SpanMs::days(14), None));
    assert_eq!(terms.clean, Schedule::parse("30 3 * * *").expect("cron"));
}

#[test]
fn the_template_is_sound_without_a_warning() {
    let config = Config::parse(Config::template(), Path::new("afterimage.toml")).expect("sound");
    assert_eq!(config.warnings(), Vec::<String>::new());
    let [policy] = &config.policies[..] else { panic!("one policy") };
    assert_eq!(policy.terms.grace, SpanMs::days(30));
    assert_eq!(policy.terms.protect_for, SpanMs::days(7));
    assert_eq!(policy.terms.keep, Keep { last: 10, daily: 7, weekly: 4, monthly: 12, ..Keep::default() });
    assert_eq!(config.default_policy.as_ref(), Some(&policy.terms));
    let breaker = policy.terms.breaker.expect("on");
    assert!(breaker.trips(6, 14) && !breaker.trips(5, 15), "six of twenty objects trip it, five do not");
}

#[test]
fn the_trial_warns_of_its_short_grace() {
    let config = Config::trial("./afterimage-data");
    assert_eq!(config.policies[0].terms.grace, SpanMs::seconds(10));
    assert_eq!(config.policies[0].terms.keep, Keep::last(3));
    let short = "a grace of 10s is below a day: what is deleted by mistake is gone before anyone notices";
    assert_eq!(config.warnings(), [format!("policy `source`: {short}"), format!("default_policy: {short}")]);
    assert_eq!(Config::parse(&config.to_toml(), Path::new("afterimage.toml")), Ok(config));
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let warned = |text: &str| parse(text).expect("allowed").warnings().join("\n");
    assert!(warned(&policy_with("keep = 1")).contains("policy `docs`: keep = 1 without protect_for"));
    assert!(warned(&policy_with("breaker = \"off\"")).contains("policy `docs`: without a breaker"));
    assert!(warned(&policy_with("mode = \"mirror\"\nbreaker = \"off\"")).contains("is mirrored at once"));
    assert!(warned("default_policy = \"off\"").contains("nothing is protected"));
    let service = "[[service]]\nname = \"mini\"\nregion = \"eu-west-1\"\n";
    assert!(warned(service).contains("service `mini` is named by no policy"));
    let named = format!("{service}[dynamodb_endpoint]\narchive = \"s3://mini@records\"");
    assert!(!warned(&named).contains("mini"), "the tables' archive is there");
    assert!(warned("[s3_endpoint]\nlisten = \"0.0.0.0:9000\"\nallow_remote = true").contains("plain HTTP"));
}

#[test]
fn a_new_bucket_gets_the_default_policy_unless_it_cannot() {
    let config = parse(&policy_with("")).expect("sound");
    let new = |bucket: &str| config.policy_for_new_bucket(bucket, |_| false);
    let made = new("photos").expect("allowed").expect("on");
    assert_eq!(made.name, PolicyName::from("photos"));
    assert_eq!((made.source.bucket.as_str(), made.destination.to_string()), ("photos", "local://photos-copies".into()));
    assert_eq!(new("docs"), Ok(None), "a policy names it");
    assert_eq!(new("docs-copies"), Ok(None), "it is a destination");
    assert!(new(&"b".repeat(57)).expect_err("too long").contains("at most 56 characters"));
    let written = config.policy_for_new_bucket("photos", |bucket| bucket == "photos-copies");
    assert!(written.expect_err("clients write it").contains("`photos-copies`, which is in use already"));
    let off = parse("default_policy = \"off\"").expect("sound");
    assert_eq!(off.policy_for_new_bucket("photos", |_| false), Ok(None));
}

fn a_span() -> impl Strategy<Value = SpanMs> {
    prop_oneof![(0u64..100_000_000).prop_map(SpanMs::seconds), (0u64..1_000).prop_map(SpanMs::days)]
}

fn a_keep() -> impl Strategy<Value = Keep> {
    let within = prop::option::of((1u64..10_000).prop_map(SpanMs::hours));
    let counts = (any::<u32>(), 0u32..9, 0u32..9, 0u32..9, 0u32..9, 0u32..9);
    (counts, within)
        .prop_map(|((last, hourly, daily, weekly, monthly, yearly), within)| Keep {
            last,
            within,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
        })
        .prop_filter("keeps something", |keep| !keep.is_empty())
}

fn a_breaker() -> impl Strategy<Value = Option<BreakerRule>> {
    let rule = (1u64..1_000_000, 0..=i64::MAX as u64, 0.0..1.0f64);
    prop::option::of(rule.prop_map(|(window, deletes, share)| BreakerRule {
        window: SpanMs::seconds(window),
        deletes,
        share,
    }))
}

fn some_terms() -> impl Strategy<Value = Terms> {
    let clean =
        prop_oneof![Just("every minute"), Just("every 6 hours"), Just("30 3 * * *"), Just("cron(0 12 * * ? *)")];
    (a_keep(), a_span(), a_span(), clean, a_breaker()).prop_map(|(keep, a, b, clean, breaker)| Terms {
        keep,
        protect_for: a.min(b),
        grace: a.max(b),
        clean: Schedule::parse(clean).expect("a schedule"),
        breaker,
    })
}

fn a_policy(place: usize) -> impl Strategy<Value = PolicyConfig> {
    (some_terms(), "\\PC{0,20}", any::<bool>(), any::<bool>()).prop_map(move |(terms, prefix, folder, mirror)| {
        let mirrored = Terms { breaker: terms.breaker, keep: Keep::last(1), grace: SpanMs::ZERO, ..Terms::default() };
        PolicyConfig {
            name: PolicyName(format!("p{place}")),
            source: Source { host: Host::Local, bucket: format!("source-{place}"), prefix },
            destination: match folder {
                true => Destination::Folder(PathBuf::from(format!("/mnt/disk \"{place}\""))),
                false => Destination::Bucket(format!("copies-{place}")),
            },
            catalog: CatalogPlace::Local,
            events: None,
            order: Basis::Sequencer,
            mode: if mirror { Mode::Mirror } else { Mode::Copies },
            terms: if mirror { mirrored } else { terms },
        }
    })
}

fn a_service() -> impl Strategy<Value = ServiceConfig> {
    let word = || prop::option::of("[a-z:/-]{1,20}");
    (prop::option::of(1..u16::MAX), word(), word(), any::<bool>()).prop_map(|(port, profile, role, path_style)| {
        ServiceConfig {
            name: "store".to_owned(),
            endpoint: port.map(|port| format!("http://127.0.0.1:{port}")),
            region: Some("eu-west-1".to_owned()),
            profile,
            role,
            path_style,
        }
    })
}

fn a_remote_policy() -> impl Strategy<Value = PolicyConfig> {
    let remote = |name: &'static str| {
        any::<bool>()
            .prop_map(move |named| Remote { service: named.then(|| "store".to_owned()), name: name.to_owned() })
    };
    let table = (remote("rows"), any::<bool>(), 1..=64_u32).prop_map(|(table, shared, index_shards)| {
        let prefix = shared.then(|| "p3".to_owned());
        CatalogPlace::Table(TablePlace { table, prefix, index_shards })
    });
    let events = (remote("events"), any::<bool>()).prop_map(|(queue, bridge)| EventsPlace {
        queue,
        channel: if bridge { EventChannel::EventBridge } else { EventChannel::Notification },
    });
    let catalog = prop_oneof![Just(CatalogPlace::Local), table];
    (some_terms(), remote("bucket"), remote("bucket-copies"), catalog, prop::option::of(events), any::<bool>())
        .prop_map(|(terms, source, destination, catalog, events, by_time)| PolicyConfig {
            name: PolicyName("p3".to_owned()),
            source: Source { host: Host::Service(source.service), bucket: source.name, prefix: "a/".to_owned() },
            destination: Destination::S3(destination),
            catalog,
            events,
            order: if by_time { Basis::Time } else { Basis::Sequencer },
            mode: Mode::Copies,
            terms,
        })
}

fn an_archive() -> impl Strategy<Value = ArchiveConfig> {
    let table = Remote { service: Some("store".to_owned()), name: "Orders".to_owned() };
    let destination = prop_oneof![
        Just(Destination::Bucket("orders-archive".to_owned())),
        Just(Destination::S3(Remote { service: None, name: "orders-archive".to_owned() })),
    ];
    let leases = TablePlace { table: table.clone(), prefix: Some("leases".to_owned()), index_shards: 1 };
    let leases = prop_oneof![Just(CatalogPlace::Local), Just(CatalogPlace::Table(leases))];
    let failures = prop::option::of(Just(Remote { service: Some("store".to_owned()), name: "failed".to_owned() }));
    let packing = (0..Packing::ALL.len(), any::<bool>());
    let service = "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}";
    let feed = prop::option::of((a_feed(), any::<bool>()).prop_map(|(to, with_image)| FeedConfig { to, with_image }));
    let expire = prop::option::of(366..40_000_u32);
    let parts = (service, destination, leases, failures, packing, expire, feed);
    parts.prop_map(move |(service, destination, leases, failures, (pack, removes_originals), expire, feed)| {
        let (service, pack) = (ServiceName::new(&service).expect("legal"), Packing::ALL[pack].0);
        let moves = [(90, TierClass::StandardIa), (365, TierClass::Glacier)];
        let moves = moves.map(|(after_days, class)| Tier { after_days, class }).to_vec();
        let tiers = match destination {
            Destination::S3(_) if service.as_str() != "packed" => {
                Tiers { moves, expire_days: expire.filter(|days| *days <= 36_525) }
            }
            _ => Tiers::default(),
        };
        ArchiveConfig {
            table: table.clone(),
            service,
            destination,
            leases,
            failures,
            pack,
            removes_originals,
            tiers,
            feed,
        }
    })
}

fn a_feed() -> impl Strategy<Value = FeedTo> {
    let url = |url: &str| FeedTo::Webhook { url: url.to_owned(), secret_file: "/etc/feed.secret".into() };
    prop_oneof![
        Just(FeedTo::File("/var/log/deletions.jsonl".into())),
        Just(url("https://hooks.example.org/T1?key=x")),
        Just(url("http://127.0.0.1:9999")),
        Just(FeedTo::Queue(Remote { service: Some("store".to_owned()), name: "told.fifo".to_owned() })),
    ]
}

#[test]
fn a_feed_that_cannot_be_is_refused_with_the_fix() {
    let with = |lines: &str| {
        let archive = "[[archive]]\ntable = \"dynamodb://Orders\"\ndestination = \"s3://orders\"\n";
        let policy = "[[policy]]\nname = \"docs\"\nsource = \"local://docs\"\ndestination = \"local:///copies\"\n";
        parse(&format!("data_dir = \"/data\"\n{policy}{archive}{lines}\n"))
    };
    let secret = "feed_secret_file = \"/etc/feed.secret\"";
    for (lines, why) in [
        ("feed = \"/var/log/x\"", "is no feed"),
        ("feed = \"file://var/log/x\"", "it takes three slashes"),
        ("feed = \"file:///var/log/\"", "it takes three slashes"),
        ("feed = \"https://example.org/x\"", "a webhook needs a secret"),
        (&format!("feed = \"http://example.org/x\"\n{secret}"), "told in the clear"),
        (&format!("feed = \"http://127.0.0.1.example.org/x\"\n{secret}"), "told in the clear"),
        (&format!("feed = \"https://me:secret@example.org/x\"\n{secret}"), "is no address of a webhook"),
        ("feed = \"https://example.org/x\"\nfeed_secret_file = \"feed.secret\"", "no absolute path"),
        (&format!("feed = \"sqs://told\"\n{secret}"), "only a webhook has a secret"),
        ("feed = \"sqs://nobody@told\"", "there is no service `nobody`"),
        ("feed = \"sqs://told\"\nfailures = \"sqs://told\"", "are one queue"),
        ("feed_image = true", "there is no `feed`"),
        ("feed = \"file:///var/log/../lib/x\"", "without `..`"),
        ("feed = \"file:///data/state.sqlite\"", "lies in data_dir"),
        ("feed = \"file:///data/buckets/archive/x.jsonl\"", "lies in data_dir"),
        ("feed = \"file:///copies/deep/x.jsonl\"", "lies in local:///copies"),
    ] {
        let refused = with(lines).expect_err(lines).to_string();
        assert!(refused.contains(why), "{lines}: {refused}");
    }
    let config = with(&format!("feed = \"https://hooks.example.org/T1?key=x\"\n{secret}")).expect("sound");
    let feed = config.archives[0].feed.as_ref().expect("asked for");
    assert_eq!((feed.to.to_string().as_str(), feed.with_image), ("https://hooks.example.org/…", false));
    assert!(!format!("{config:?}").contains("key=x"), "what stands behind the host may be a secret");
}

fn some_tables() -> impl Strategy<Value = TablesConfig> {
    let archive = prop_oneof![
        Just(Destination::Bucket("records".to_owned())),
        Just(Destination::S3(Remote { service: None, name: "all-records".to_owned() })),
    ];
    let listen = prop::option::of(any::<u16>().prop_map(|port| ([127, 0, 0, 1], port).into()));
    (listen, any::<bool>(), archive).prop_map(|(listen, allow_remote, archive)| TablesConfig {
        listen,
        allow_remote,
        archive,
    })
}

#[test]
fn the_dynamodb_endpoint_is_beside_the_other_unless_a_file_says_where() {
    let listen = |text: &str| parse(text).expect("sound").tables_listen().map(|at| at.to_string());
    assert_eq!(listen("").as_deref(), Some("127.0.0.1:9001"));
    assert_eq!(listen("[s3_endpoint]\nlisten = \"[::1]:7000\"").as_deref(), Some("[::1]:7001"));
    assert_eq!(listen("[s3_endpoint]\nlisten = \"127.0.0.1:0\"").as_deref(), Some("127.0.0.1:0"));
    let open = "[s3_endpoint]\nlisten = \"0.0.0.0:80\"\nallow_remote = true";
    assert_eq!(listen(open).as_deref(), Some("127.0.0.1:81"), "what one endpoint may the other may not");
    assert_eq!(listen("[dynamodb_endpoint]\nlisten = \"127.0.0.1:8000\"").as_deref(), Some("127.0.0.1:8000"));
    assert_eq!(listen("dynamodb_endpoint = \"off\""), None);
}

proptest! {
    #[test]
    fn the_effective_configuration_reads_back_to_itself(
        first in a_policy(1),
        second in a_policy(2),
        third in a_remote_policy(),
        service in a_service(),
        archive in an_archive(),
        default_policy in prop::option::of(some_terms()),
        tables in prop::option::of(some_tables()),
        port in any::<u16>(),
    ) {
        let config = Config {
            data_dir: PathBuf::from("/var/lib/after \"image\""),
            endpoint: Endpoint { listen: ([0, 0, 0, 0], port).into(), allow_remote: true },
            tables,
            services: vec![service],
            policies: vec![first, second, third],
            archives: vec![archive],
            default_policy,
        };
        let text = config.to_toml();
        prop_assert_eq!(Config::parse(&text, Path::new(FILE)).map_err(|error| format!("{error}\n{text}")), Ok(config));
    }
}

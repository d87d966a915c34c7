//! Names of copies: built from an event alone, read back whole, sorted by age, never longer than a key may be.

use lifecycle::copy_key::{CopyName, Identity, Original, Parsed, parse};
use lifecycle::event::Version;
use lifecycle::ids::{CopyKey, ETag, KEY_BYTES_MAX, ObjectKey, VersionId};
use lifecycle::order::{Basis, Order};
use lifecycle::row::Origin;
use lifecycle::time::UnixMs;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

fn object(key: &str) -> ObjectKey {
    ObjectKey::new(key).expect("a legal key")
}

fn event_name(version_id: Option<&str>, etag: &str, hex: &str, ms: i64) -> CopyName {
    let version = Version { version_id: version_id.map(VersionId::from), etag: etag.into(), size: 3 };
    CopyName::of_event(&version, Order::from_sequencer(hex).expect("hex"), UnixMs(ms))
}

/// Keys of every length from 1 to 1,024 bytes, made of what grammars trip over, sometimes of a copy's own name.
fn keys() -> impl Strategy<Value = ObjectKey> {
    let cut_to = |text: String, most: usize| {
        let text = &text[..text.floor_char_boundary(most)];
        object(if text.is_empty() { "." } else { text })
    };
    let pieces = prop_oneof![
        Just("a"),
        Just("."),
        Just("-"),
        Just("/"),
        Just(".."),
        Just("_"),
        Just("é"),
        Just("🗄"),
        Just("日本"),
        Just("\u{7}"),
        Just(" "),
        Just("+"),
        Just("%2B"),
        Just(".20261121T072612345Z-s1-v1"),
        Just("-h0123456789abcdef0123456789abcdef"),
        Just("long/enough/to/reach/the/limit/now/and/then/"),
    ];
    let patched = proptest::collection::vec(pieces, 1..400).prop_map(|pieces| pieces.concat());
    let any_text = proptest::collection::vec(any::<char>(), 1..400).prop_map(String::from_iter);
    (prop_oneof![patched, any_text], 1..=KEY_BYTES_MAX).prop_map(move |(text, most)| cut_to(text, most))
}

fn names() -> impl Strategy<Value = CopyName> {
    let orders = prop_oneof![
        ("[0-9a-f]{1,32}", any::<u32>()).prop_map(|(hex, sub)| format!("s{hex}_{sub}")),
        (0i64.., any::<u32>()).prop_map(|(ms, sub)| format!("t{ms}_{sub}")),
        "[0-9a-f]{1,32}".prop_map(|hex| format!("s{hex}")),
    ];
    let orders = orders.prop_map(|text| text.parse::<Order>().expect("an order"));
    let identities = prop_oneof![
        ".{0,40}".prop_map(|id| (Some(id), String::new())),
        "[a-zA-Z0-9+/=_.-]{1,200}".prop_map(|id| (Some(id), String::new())),
        "[a-f0-9]{32}(-[0-9]{1,5})?".prop_map(|tag| (None, tag)),
        ".{0,300}".prop_map(|tag| (None, tag)),
    ];
    let identities = identities
        .prop_map(|(id, etag)| Identity::of(&Version { version_id: id.map(VersionId), etag: ETag(etag), size: 1 }));
    let origins = prop_oneof![
        Just((Origin::Event, false)),
        Just((Origin::Look, true)),
        (0i64..).prop_map(|at| (Origin::Undelete { at: UnixMs(at) }, true)),
    ];
    let times = 0i64..=253_402_207_200_000; // the last moment that a name can tell
    (times, orders, any::<bool>(), origins, option::of("[0-9a-f]{1,32}"), identities).prop_map(
        |(ms, order, floating, (origin, named), nonce, identity)| CopyName {
            created_at: UnixMs(ms),
            order,
            floating,
            origin,
            nonce: named.then(|| nonce.unwrap_or_else(|| "0123456789abcdef".to_owned())),
            identity,
        },
    )
}

proptest! {
    #[test]
    fn every_name_reads_back(original in keys(), name in names()) {
        let (copy_key, cut) = name.copy_key(&original);
        prop_assert!(copy_key.as_str().len() <= KEY_BYTES_MAX);
        let parsed = parse(copy_key.object()).expect("names what it was built from");
        prop_assert_eq!(&parsed.name, &name);
        prop_assert_eq!(parsed.original.clone().resolve(Some(original.clone())), Some(original.clone()));
        prop_assert_eq!(matches!(parsed.original, Original::Cut { .. }), cut);
        if !cut {
            prop_assert_eq!(parsed.original, Original::Whole(original));
        }
    }

    #[test]
    fn nothing_but_what_was_built_reads_as_a_copy(original in keys(), name in names(), at: usize, with: char) {
        let (copy_key, _) = name.copy_key(&original);
        let mut changed: Vec<char> = copy_key.as_str().chars().collect();
        let at = at % changed.len();
        changed[at] = with;
        let Ok(changed) = ObjectKey::new(String::from_iter(changed)) else { return Ok(()) };
        if let Some(Parsed { original: Original::Whole(original), name }) = parse(&changed) {
            let (rebuilt, _) = name.copy_key(&original);
            prop_assert_eq!(rebuilt.object(), &changed);
        }
    }

    #[test]
    fn a_redelivery_makes_the_same_name_whatever_the_time_and_tag_look_like(
        key in keys(), tag in ".{0,200}", ms: i64, hex in "[0-9a-f]{1,32}", versioned: bool,
    ) {
        let id = versioned.then_some(tag.as_str());
        let built = || event_name(id, &tag, &hex, ms).copy_key(&key);
        prop_assert_eq!(built(), built());
        prop_assert!(parse(built().0.object()).is_some());
    }

    #[test]
    fn copies_of_one_key_sort_by_age(key in keys(), mut ages in proptest::collection::vec(0i64..4_000_000_000_000, 2..20)) {
        ages.sort_unstable();
        let copies: Vec<CopyKey> =
            ages.iter().map(|ms| event_name(None, "0a", "5", *ms).copy_key(&key).0).collect();
        prop_assert!(copies.is_sorted());
    }

    #[test]
    fn two_versions_never_share_a_name(key in keys(), a in names(), b in names()) {
        prop_assert_eq!(a == b, a.copy_key(&key) == b.copy_key(&key));
    }

    #[test]
    fn two_long_keys_that_begin_alike_never_share_a_name(end_a in "[a-z]{1,10}", end_b in "[a-z]{1,10}") {
        let name = event_name(Some("v1"), "", "5", 1);
        let long = |end: &str| object(&format!("{}{end}", "k".repeat(1_000)));
        let (a, b) = (long(&end_a), long(&end_b));
        prop_assert_eq!(a == b, name.copy_key(&a) == name.copy_key(&b));
    }
}

#[test]
fn names_as_the_document_shows_them() {
    let version = event_name(Some("0000019aa3c1f2b4"), "", "0000019aa3c1f2b4", 1_795_245_972_345);
    let tag = CopyName {
        order: Order::from_time(UnixMs(1_795_245_972_345)),
        ..event_name(None, "9b2cf535f27731c974343645a3985328-12", "0", 1_795_245_972_345)
    };
    let looked = CopyName {
        order: tag.order.next_sub(),
        floating: true,
        origin: Origin::Look,
        nonce: Some("6f1d2c3b4a596877".to_owned()),
        ..tag.clone()
    };
    let undeleted = CopyName {
        order: version.order.next_sub(),
        origin: Origin::Undelete { at: UnixMs(1_795_250_000_000) },
        nonce: Some("0123456789abcdef".to_owned()),
        ..version.clone()
    };
    for (name, copy_key) in [
        (version, "notes/plan.txt.20261121T072612345Z-s0000019aa3c1f2b4-v0000019aa3c1f2b4"),
        (tag, "notes/plan.txt.20261121T072612345Z-t1795245972345-e9b2cf535f27731c974343645a3985328_2d12"),
        (
            looked,
            "notes/plan.txt.20261121T072612345Z-t1795245972345_1FN6f1d2c3b4a596877\
             -e9b2cf535f27731c974343645a3985328_2d12",
        ),
        (
            undeleted,
            "notes/plan.txt.20261121T072612345Z-s0000019aa3c1f2b4_1U1795250000000N0123456789abcdef\
             -v0000019aa3c1f2b4",
        ),
    ] {
        assert_eq!(name.copy_key(&object("notes/plan.txt")).0.as_str(), copy_key);
        assert_eq!(parse(&object(copy_key)).map(|parsed| parsed.name), Some(name));
    }
}

#[test]
fn a_key_that_itself_names_a_copy_keeps_its_whole_name() {
    let name = event_name(Some("v1"), "", "5", 1_795_245_972_345);
    let (first, _) = name.copy_key(&object("a.txt"));
    let (second, _) = name.copy_key(first.object());
    let parsed = parse(second.object()).expect("a copy of a copy");
    assert_eq!(parsed.original, Original::Whole(first.object().clone()));
}

#[test]
fn a_long_key_is_cut_at_a_character_and_only_its_own_metadata_resolves_it() {
    let original = object(&"é".repeat(512));
    let (copy_key, cut) = event_name(Some("v1"), "", "5", 1).copy_key(&original);
    assert!(cut && copy_key.as_str().starts_with("ééé"));
    assert!((KEY_BYTES_MAX - 1..=KEY_BYTES_MAX).contains(&copy_key.as_str().len()));
    let parsed = parse(copy_key.object()).expect("a copy").original;
    assert_eq!(parsed.clone().resolve(Some(original.clone())), Some(original));
    assert_eq!(parsed.clone().resolve(Some(object("another"))), None);
    assert_eq!(parsed.resolve(None), None);
}

#[test]
fn a_key_is_cut_exactly_when_the_suffix_does_not_fit() {
    let name = event_name(Some("v1"), "", "5", 1);
    let room = KEY_BYTES_MAX - ".19700101T000000001Z-s5-vv1".len();
    assert!(!name.copy_key(&object(&"k".repeat(room))).1);
    assert!(name.copy_key(&object(&"k".repeat(room + 1))).1);
}

#[test]
fn long_version_ids_and_tags_are_hashed() {
    let long = "x".repeat(128 + 1);
    for version in [event_name(Some(&long), "", "5", 1), event_name(None, &long, "5", 1)] {
        assert!(matches!(&version.identity, Identity::Hashed(hash) if hash.len() == 32));
    }
    let tag = CopyName { identity: Identity::Tag(ETag(long.clone())), ..event_name(None, "", "5", 1) };
    assert_eq!(tag.copy_key(&object("k")), event_name(None, &long, "5", 1).copy_key(&object("k")));
    let fits = "x".repeat(128);
    assert_eq!(event_name(None, &fits, "5", 1).identity, Identity::Tag(ETag(fits)));
}

#[test]
fn foreign_objects_are_no_copies() {
    for foreign in [
        "plan.txt",
        "plan",
        ".20261121T072612345Z-s1-v1",                                     // no original
        "a.20261121T072612345Z-s1",                                       // no identity
        "a.20261121T072612345Z-s1-v1-x",                                  // a fourth part that is no hash
        "a.20261121T072612345Z-s1-v1-h0123",                              // a hash too short
        "a.20261121T072612345Z-s1-v1-h0123456789abcdef0123456789abcdef-", // a part too many
        "a.20261121T072612345Z-s01_0-v1",                                 // a sub of nothing
        "a.20261121T072612345Z-s10-v1",                                   // a trailing zero
        "a.20261121T072612345Z-sA-v1",                                    // upper case
        "a.20261121T072612345Z-t5-v1",                                    // a time without its leading zeros
        "a.20261121T072612345Z-s1N-v1",                                   // an empty nonce
        "a.20261121T072612345Z-s1NXYZ-v1",                                // a nonce that is none
        "a.20261121T072612345Z-s1U+5-v1",                                 // a sign
        "a.20261121T072612345Z-s1-v_41",                                  // escaped without need
        "a.20261121T072612345Z-s1-v_2D",                                  // upper-case hex
        "a.20261121T072612345Z-s1-v_ff",                                  // no UTF-8
        "a.20261121T072612345Z-s1-wzz",                                   // no hash
        "a.20261321T072612345Z-s1-v1",                                    // no month
        "a.20261121T072660345Z-s1-v1",                                    // a leap second
        "a.2026-11-21T07:26Z-s1-v1",
    ] {
        assert_eq!(parse(&object(foreign)), None, "{foreign}");
    }
    assert!(parse(&object("a.20261121T072612345Z-s1-v1")).is_some(), "the table differs from a copy in one thing each");
}

#[test]
fn orders_of_both_bases_stand_in_names() {
    for basis in [Basis::Sequencer, Basis::Time] {
        let name = CopyName { order: Order::lowest(basis), ..event_name(None, "e", "0", 0) };
        let (copy_key, _) = name.copy_key(&object("k"));
        assert_eq!(parse(copy_key.object()).map(|parsed| parsed.name.order), Some(Order::lowest(basis)));
    }
}

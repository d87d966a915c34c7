//! Names of archived records: from the deletion alone, readable, never longer than a key may be, and never shared by two
//! deletions that both know whose the plain one is.

#![expect(clippy::unwrap_used, reason = "a panic is a test's message")]

use lifecycle::archive::{Deletion, KeyValue, Parsed, Sequence, ServiceName, day_prefix, parse, typed};
use lifecycle::ids::{KEY_BYTES_MAX, ObjectKey};
use lifecycle::time::UnixMs;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

/// 2026-11-21T07:26:12Z.
const AT: UnixMs = UnixMs(1_795_245_972_000);

fn deletion(key: &[KeyValue]) -> Deletion {
    Deletion {
        service: ServiceName::new("orders").unwrap(),
        table: "Orders".to_owned(),
        key: key.to_vec(),
        at: AT,
        sequence: Sequence::new("000000000000000000042").unwrap(),
    }
}

fn text(text: &str) -> KeyValue {
    KeyValue::Text(text.to_owned())
}

fn name(key: &[KeyValue]) -> String {
    deletion(key).plain_name().to_string()
}

#[test]
fn a_person_finds_a_record_by_service_day_and_key() {
    assert_eq!(name(&[text("USER#123"), text("PROFILE")]), "orders/2026/11/21/USER#123_PROFILE.json");
    assert_eq!(name(&[KeyValue::Number("-12.5".to_owned())]), "orders/2026/11/21/-12.5.json");
    assert_eq!(name(&[KeyValue::Binary(vec![0xfb, 0xff, 0])]), "orders/2026/11/21/-_8A.json");
    assert_eq!(name(&[text("né kö 日本")]), "orders/2026/11/21/né kö 日本.json");
}

#[test]
fn what_names_do_not_take_is_escaped() {
    assert_eq!(name(&[text("a/../b")]), "orders/2026/11/21/a%2F..%2Fb.json");
    assert_eq!(name(&[text("50%~\u{7}\\")]), "orders/2026/11/21/50%25%7E%07%5C.json");
    assert_eq!(name(&[text("\u{85}:*?\"<>|")]), "orders/2026/11/21/%C2%85%3A%2A%3F%22%3C%3E%7C.json");
}

#[test]
fn a_key_may_be_typed_plain_or_as_names_have_it() {
    for (key, in_names) in [("a_b", "a_b"), ("a/b", "a%2Fb"), ("50%", "50%25"), ("5%x/y", "5%25x%2Fy")] {
        assert_eq!(typed(key), [in_names], "{key}");
    }
    assert_eq!(typed("a%2Fb"), ["a%252Fb", "a%2Fb"], "it is a key, too");
}

#[test]
fn two_keys_that_look_alike_have_names_of_their_own() {
    let one = deletion(&[text("a"), text("b_c")]);
    let other = deletion(&[text("a_b"), text("c")]);
    assert_eq!(one.plain_name(), other.plain_name());
    assert_ne!(one.own_name(), other.own_name());
    let number = deletion(&[KeyValue::Number("1".to_owned())]);
    assert_ne!(number.own_name(), deletion(&[text("1")]).own_name());
    let elsewhere = Deletion { table: "Other".to_owned(), ..one.clone() };
    assert_ne!(one.own_name(), elsewhere.own_name());
}

#[test]
fn a_name_that_is_nobodys_does_not_read_back() {
    for foreign in [
        "orders/2026/11/21/a.txt",
        "orders/2026/11/31/a.json",
        "orders/2026/1/21/a.json",
        "orders/2026/11/a.json",
        "/2026/11/21/a.json",
        "orders/2026/11/21/a/b.json",
        "orders/2026/11/21/a~12.json",
        "orders/2026/11/21/a~h12.json",
        "orders/2026/11/21/a~x-00112233445566778899aabbccddeeff.json",
        ".afterimage/2026/11/21/a.json",
    ] {
        assert_eq!(parse(&ObjectKey::new(foreign).unwrap()), None, "{foreign}");
    }
}

#[test]
fn services_are_one_segment_of_a_name() {
    for legal in ["a", "Orders-1.b_c", "0"] {
        assert_eq!(ServiceName::new(legal).unwrap().as_str(), legal);
    }
    for illegal in ["", ".a", "a/b", "a b", "é", "..", &"a".repeat(64)] {
        let error = ServiceName::new(illegal).unwrap_err().to_string();
        assert!(error.contains("beginning with a letter or digit"), "{error}");
    }
}

#[test]
fn sequence_numbers_compare_as_numbers() {
    let sequence = |digits: &str| Sequence::new(digits).unwrap();
    assert!(sequence("9") < sequence("10") && sequence("0009") < sequence("10") && sequence("10") < sequence("00011"));
    for illegal in ["", "1a", "-1", &"1".repeat(41)] {
        assert_eq!(Sequence::new(illegal), None, "{illegal}");
    }
}

fn values() -> impl Strategy<Value = KeyValue> {
    let pieces = prop_oneof![
        Just("a"),
        Just("_"),
        Just("/"),
        Just(".."),
        Just("~h00112233445566778899aabbccddeeff"),
        Just(".json"),
        Just("%2F"),
        Just("é日本🗄"),
        Just("\u{7}"),
        Just("long enough to reach the limit now and then "),
    ];
    prop_oneof![
        proptest::collection::vec(pieces, 0..100).prop_map(|pieces| KeyValue::Text(pieces.concat())),
        proptest::collection::vec(any::<char>(), 0..700).prop_map(|chars| KeyValue::Text(String::from_iter(chars))),
        "-?[1-9][0-9]{0,37}".prop_map(KeyValue::Number),
        proptest::collection::vec(any::<u8>(), 0..2_048).prop_map(KeyValue::Binary),
    ]
}

fn deletions() -> impl Strategy<Value = Deletion> {
    let keys = proptest::collection::vec(values(), 1..=2);
    (keys, "[0-9]{1,40}", 0i64..4_000_000_000_000, "[a-zA-Z0-9_.-]{3,255}", "[a-z0-9][a-zA-Z0-9_.-]{0,62}").prop_map(
        |(key, sequence, at, table, service)| Deletion {
            service: ServiceName::new(&service).unwrap(),
            table,
            key,
            at: UnixMs(at),
            sequence: Sequence::new(&sequence).unwrap(),
        },
    )
}

proptest! {
    #[test]
    fn names_read_back_lie_in_their_day_and_are_of_their_key(one in deletions(), other in values()) {
        for (name, is_own) in [(one.plain_name(), false), (one.own_name(), true)] {
            prop_assert!(name.as_str().len() <= KEY_BYTES_MAX);
            prop_assert!(name.as_str().starts_with(&day_prefix(&one.service, one.at)));
            prop_assert_eq!(name.as_str().matches('/').count(), 4, "{}", name);
            let parsed: Parsed = parse(&name).unwrap();
            prop_assert_eq!(&parsed.service, &one.service);
            prop_assert_eq!(parsed.sequence.as_ref(), Some(&one.sequence).filter(|_| is_own));
            prop_assert!(parsed.is_of(&one.key_in_names()));
            let other = Deletion { key: vec![other.clone()], ..one.clone() };
            prop_assert_eq!(parsed.is_of(&other.key_in_names()), one.key_in_names() == other.key_in_names());
        }
    }

    #[test]
    fn only_the_same_deletion_has_the_same_name_of_its_own(one in deletions(), two in deletions(), swap in any::<bool>()) {
        prop_assert_ne_names(&one, &two)?;
        let sequence = if swap { two.sequence.clone() } else { one.sequence.clone() };
        prop_assert_ne_names(&one, &Deletion { sequence, key: two.key, ..one.clone() })?;
    }
}

fn prop_assert_ne_names(one: &Deletion, two: &Deletion) -> Result<(), proptest::test_runner::TestCaseError> {
    let same = one.key == two.key && one.sequence == two.sequence && one.table == two.table;
    if !same {
        prop_assert!(one.own_name() != two.own_name(), "{}", one.own_name());
    }
    Ok(())
}

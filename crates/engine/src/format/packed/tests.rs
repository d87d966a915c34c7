//! Packs of generated records: every row gives back its object's body, by whole files and by single row groups.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn original(n: usize, image: Value) -> Original {
    let body = json!({
        "afterimage": {
            "format": 1, "service": "orders", "table": "Orders", "cause": if n.is_multiple_of(3) { "ttl" } else { "user" },
            "deleted_at": "2026-11-21T10:00:00Z", "sequence": format!("{n:021}"), "key": ["pk", "sk"],
        },
        "dynamodb": { "Keys": { "pk": { "S": format!("p {n}") }, "sk": { "N": n.to_string() } }, "OldImage": image },
        "eventID": format!("{n:x}"),
    });
    Original {
        object: ObjectKey::new(format!("orders/2026/11/21/p {n:06}_{n}.json")).unwrap(),
        etag: ETag::from(format!("tag {n}").as_str()),
        body: body.to_string().into(),
    }
}

fn pack(originals: &[Original]) -> (Bytes, Packed) {
    let mut file = Vec::new();
    let mut writer = PackWriter::new(&mut file).unwrap();
    for original in originals {
        writer.add(row_of(original).unwrap()).unwrap();
    }
    let packed = writer.finish().unwrap();
    (file.into(), packed)
}

fn all() -> Vec<Column> {
    COLUMNS.iter().map(|(column, ..)| *column).collect()
}

/// Reads a row group by its ranges alone.
fn group(file: &Bytes, footer: &Footer, place: usize, columns: &[Column]) -> Columns {
    decode(footer, place, columns, pieces(file, footer, place, columns)).unwrap()
}

fn pieces(file: &Bytes, footer: &Footer, place: usize, columns: &[Column]) -> Pieces {
    let ranges = footer.ranges(place, columns);
    let piece = |range: &std::ops::Range<u64>| (range.start, file.slice(range.start as usize..range.end as usize));
    Pieces { length: file.len() as u64, pieces: ranges.iter().map(piece).collect() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_row_gives_its_body_back(texts in prop::collection::vec("[^\u{0}]{0,40}", 1..40)) {
        let image = |text: &String| json!({ "text": { "S": text }, "\"OldImage\":": { "NULL": true }, "n": { "N": "1E+400" } });
        let originals: Vec<Original> = texts.iter().enumerate().map(|(n, text)| original(n, image(text))).collect();
        let (file, packed) = pack(&originals);
        prop_assert_eq!(packed.records, originals.len() as u64);
        let footer = footer(&file).unwrap();
        prop_assert_eq!((footer.records, &footer.digest), (packed.records, &packed.digest));
        let rows = group(&file, &footer, 0, &all());
        let mut check = Check::default();
        prop_assert!(check.group(&footer, 0, &rows));
        prop_assert!(check.end(&footer).is_some());
        for (n, original) in originals.iter().enumerate() {
            prop_assert_eq!(body_of(&rows, n), Some(original.body.clone()));
            prop_assert_eq!(rows.text(Column::SortKey, n).map(str::to_owned), Some(n.to_string()));
        }
    }
}

#[test]
fn large_packs_have_row_groups_that_say_what_they_have() {
    let filler = "x".repeat(900);
    let originals: Vec<Original> = (0..40_000).map(|n| original(n, json!({ "filler": { "S": filler } }))).collect();
    let (file, packed) = pack(&originals);
    assert!(packed.bytes > 20 * file.len() as u64, "{} of {}", file.len(), packed.bytes);
    let length = footer_length(&file).unwrap();
    let footer = footer(&file.slice(file.len() - length..)).unwrap();
    assert!(footer.groups() > 2, "{}", footer.groups());
    let mut at = 0;
    for place in 0..footer.groups() {
        let rows = group(&file, &footer, place, &[Column::Object, Column::Size, Column::DeletedAt]);
        let names: Vec<&str> = (0..rows.rows).map(|row| rows.text(Column::Object, row).unwrap()).collect();
        assert_eq!(footer.objects(place), Some((names[0], names[names.len() - 1])));
        assert!(names.iter().zip(&originals[at..]).all(|(name, original)| *name == original.object.as_str()));
        assert_eq!(rows.int(Column::Size, 0), Some(originals[at].body.len() as i64));
        assert_eq!(rows.from_object(names[7]), 7);
        assert_eq!((rows.from_object("a"), rows.from_object("z")), (0, rows.rows));
        at += rows.rows;
    }
    assert_eq!(at, originals.len());
}

#[test]
fn keys_of_every_kind_are_columns() {
    let mut one = original(1, json!({}));
    let body = String::from_utf8(one.body.to_vec()).unwrap();
    one.body = body.replace(r#"{"S":"p 1"}"#, r#"{"B":"AAEC"}"#).replace(r#","sk":{"N":"1"}"#, "").into();
    one.body = String::from_utf8(one.body.to_vec()).unwrap().replace(r#"["pk","sk"]"#, r#"["pk"]"#).into();
    let (file, _) = pack(std::slice::from_ref(&one));
    let rows = group(&file, &footer(&file).unwrap(), 0, &all());
    let text = |column| rows.text(column, 0);
    assert_eq!((text(Column::PartitionKey), text(Column::PartitionKeyType)), (Some("AAEC"), Some("B")));
    assert_eq!((text(Column::SortKey), text(Column::SortKeyType)), (None, None));
    assert_eq!(rows.int(Column::DeletedAt, 0), Some(1_795_255_200_000));
    assert_eq!(body_of(&rows, 0), Some(one.body));
}

#[test]
fn what_is_no_archived_record_is_not_packed() {
    let newer = r#"{"afterimage":{"format":2,"table":"t","cause":"user","deleted_at":"","sequence":"","key":[]},
                    "dynamodb":{"Keys":{},"OldImage":{}}}"#;
    for body in ["", "{", "[]", "{\"a\": 1}", newer] {
        let mut one = original(1, json!({}));
        one.body = body.as_bytes().to_vec().into();
        assert!(row_of(&one).is_err(), "{body}");
    }
}

/// Another value in any column of any row, rows in another order, a row too few: each is noticed.
#[test]
fn a_pack_that_differs_in_any_column_is_not_what_was_packed() {
    let originals: Vec<Original> = (0..5).map(|n| original(n, json!({ "n": { "N": n.to_string() } }))).collect();
    let (file, _) = pack(&originals);
    let footer = footer(&file).unwrap();
    let is_what_was_packed = |change: &dyn Fn(&mut Columns)| {
        let mut rows = group(&file, &footer, 0, &all());
        change(&mut rows);
        let mut check = Check::default();
        check.group(&footer, 0, &rows) && check.end(&footer).is_some()
    };
    assert!(is_what_was_packed(&|_| {}));
    for (column, name, kind) in COLUMNS {
        let changed = match kind {
            Kind::Text { .. } => is_what_was_packed(&|rows| {
                rows.texts.get_mut(&column).unwrap()[2] = Some("another".into());
            }),
            Kind::Moment | Kind::Number => is_what_was_packed(&|rows| rows.ints.get_mut(&column).unwrap()[2] += 1),
        };
        assert!(!changed, "{name}");
    }
    let swapped = |rows: &mut Columns| {
        rows.texts.values_mut().for_each(|texts| texts.swap(1, 2));
        rows.ints.values_mut().for_each(|ints| ints.swap(1, 2));
    };
    assert!(!is_what_was_packed(&swapped));
    assert!(!is_what_was_packed(&|rows| rows.rows -= 1));
}

#[test]
fn a_damaged_pack_is_noticed() {
    let originals: Vec<Original> = (0..50).map(|n| original(n, json!({ "n": { "N": n.to_string() } }))).collect();
    let (file, _) = pack(&originals);
    assert!(footer(&file.slice(..file.len() - 9)).is_err());
    assert!(footer(b"PAR1").is_err() && footer(&[0; 64]).is_err());
    let footer = super::footer(&file).unwrap();
    // In its end: nothing of it is taken for what was written.
    let start = file.len() - footer_length(&file).unwrap();
    for place in start..file.len() {
        let mut damaged = file[start..].to_vec();
        damaged[place - start] ^= 0x81;
        let read =
            footer_length(&damaged).is_ok_and(|length| length <= damaged.len() && super::footer(&damaged).is_ok());
        assert!(!read, "byte {place}");
    }
    // In a column: it does not read back, and others do.
    for (column, name, _) in COLUMNS {
        let range = footer.ranges(0, &[column]).remove(0);
        for place in range.clone().step_by(7).chain([range.end - 1]) {
            let mut damaged = file.to_vec();
            damaged[place as usize] ^= 0x40;
            let damaged = Bytes::from(damaged);
            assert!(decode(&footer, 0, &[column], pieces(&damaged, &footer, 0, &[column])).is_err(), "{name}: {place}");
            let others: Vec<Column> = all().into_iter().filter(|other| *other != column).collect();
            assert_eq!(group(&damaged, &footer, 0, &others).rows, originals.len());
        }
    }
}

/// Every row group has checksums of its own columns, also where it is not the first one.
#[test]
fn a_damaged_row_group_of_a_pack_of_several_is_noticed_and_the_others_read_back() {
    let filler = "x".repeat(60_000);
    let originals: Vec<Original> = (0..600).map(|n| original(n, json!({ "filler": { "S": filler } }))).collect();
    let (file, _) = pack(&originals);
    let footer = super::footer(&file).unwrap();
    assert!(footer.groups() > 2, "{}", footer.groups());
    let mut damaged = file.to_vec();
    damaged[footer.ranges(1, &[Column::Object])[0].start as usize + 40] ^= 1;
    let damaged = Bytes::from(damaged);
    let read = |place| decode(&footer, place, &all(), pieces(&damaged, &footer, place, &all()));
    let why = read(1).unwrap_err().to_string();
    assert!(why.contains("the column `object` of its row group 1"), "{why}");
    assert!((0..footer.groups()).all(|place| (place == 1) != read(place).is_ok()));
}

/// A footer that says that it is of an older layout, without checksums, is not read.
#[test]
fn a_pack_of_a_layout_without_checksums_is_refused() {
    let (file, _) = pack(&[original(1, json!({}))]);
    let mut older = file.to_vec();
    let name = b"afterimage.format";
    let at = older.windows(name.len()).rposition(|part| part == name).unwrap() + name.len() + 2;
    assert_eq!(older[at], b'2');
    older[at] = b'1';
    let why = super::footer(&older).unwrap_err().to_string();
    assert!(why.contains("its format is 1, which has no checksums"), "{why}");
}

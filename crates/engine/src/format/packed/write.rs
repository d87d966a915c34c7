//! Writing a pack: rows in, a Parquet file out, with a row group in memory at a time.

use super::columns::{COLUMNS, Column, Columns, Kind, schema};
use super::sums::{NOT_YET, OWN_SUM, SUMS, Summed};
use super::{GROUP_BYTES, GROUP_ROWS, NO_IMAGE, Original, RowsDigest, VERSION};
use crate::format::archived::BadRecord;
use bytes::Bytes;
use lifecycle::archive::{Cause, hash_of};
use lifecycle::ids::ObjectKey;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::Result;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// How many records.
    pub records: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// What [`RowsDigest`] makes of them.
    pub digest: String,
}

/// A body, as far as its row needs it.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    afterimage: Ours<'a>,
    #[serde(borrow)]
    dynamodb: Stream<'a>,
}

#[derive(Deserialize)]
struct Ours<'a> {
    format: u64,
    table: &'a str,
    cause: &'a str,
    deleted_at: &'a str,
    sequence: &'a str,
    key: Vec<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Stream<'a> {
    #[serde(rename = "Keys", borrow)]
    keys: BTreeMap<Cow<'a, str>, KeyOf<'a>>,
    #[serde(rename = "OldImage", borrow)]
    image: &'a RawValue,
}

/// A key's value in DynamoDB's JSON.
#[derive(Deserialize)]
enum KeyOf<'a> {
    #[serde(borrow)]
    S(Cow<'a, str>),
    #[serde(borrow)]
    N(Cow<'a, str>),
    #[serde(borrow)]
    B(Cow<'a, str>),
}

impl KeyOf<'_> {
    fn parts(&self) -> (&str, &'static str) {
        match self {
            KeyOf::S(value) => (value, "S"),
            KeyOf::N(value) => (value, "N"),
            KeyOf::B(value) => (value, "B"),
        }
    }
}

/// Packs rows in the order in which they come, which must be that of the objects' names.
pub struct PackWriter<W: Write + Send> {
    file: SerializedFileWriter<Summed<W>>,
    group: Columns,
    group_bytes: usize,
    packed: Packed,
    digest: RowsDigest,
}

impl<W: Write + Send> PackWriter<W> {
    /// Begins a pack.
    pub fn new(sink: W) -> Result<PackWriter<W>> {
        let all_of_them_differ = ["hash", "etag", "sequence", "image", "rest"];
        let mut properties = WriterProperties::builder()
            .set_created_by("afterimage".to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            // Whole names: a row group says exactly which ones it has.
            .set_statistics_truncate_length(None)
            .set_sorting_columns(Some(vec![SortingColumn { column_idx: 0, descending: false, nulls_first: false }]))
            .set_column_dictionary_enabled(ColumnPath::from("object"), false);
        for name in all_of_them_differ {
            properties = properties
                .set_column_dictionary_enabled(ColumnPath::from(name), false)
                .set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::None);
        }
        let file = SerializedFileWriter::new(Summed::new(sink), schema()?, Arc::new(properties.build()))?;
        let packed = Packed { records: 0, bytes: 0, digest: String::new() };
        Ok(PackWriter { file, group: Columns::default(), group_bytes: 0, packed, digest: RowsDigest::default() })
    }

    /// Adds a row.
    pub fn add(&mut self, row: Row) -> Result<()> {
        let size = row.bytes();
        self.packed.records += 1;
        self.packed.bytes += size as u64;
        self.group_bytes += size;
        row.onto(&mut self.group);
        if self.group.rows >= GROUP_ROWS || self.group_bytes >= GROUP_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Ends the pack.
    pub fn finish(mut self) -> Result<Packed> {
        self.flush()?;
        self.packed.digest = self.digest.hex();
        let sums = self.file.inner_mut().begin_end();
        let told = [
            ("afterimage.format", VERSION.to_string()),
            ("afterimage.records", self.packed.records.to_string()),
            ("afterimage.bytes", self.packed.bytes.to_string()),
            ("afterimage.digest", self.packed.digest.clone()),
            (SUMS, sums),
            (OWN_SUM, NOT_YET.to_owned()),
        ];
        for (name, value) in told {
            self.file.append_key_value_metadata(KeyValue::new(name.to_owned(), value));
        }
        self.file.into_inner()?.write_end()?;
        Ok(self.packed)
    }

    fn flush(&mut self) -> Result<()> {
        if self.group.rows == 0 {
            return Ok(());
        }
        let mut group = std::mem::take(&mut self.group);
        self.group_bytes = 0;
        (0..group.rows).for_each(|row| self.digest.add(&group, row));
        let mut writer = self.file.next_row_group()?;
        for (column, _, kind) in COLUMNS {
            let mut chunk = writer.next_column()?.expect("the schema has these columns");
            match kind {
                Kind::Text { optional } => {
                    let texts = group.texts.remove(&column).unwrap_or_default();
                    let levels: Option<Vec<i16>> =
                        optional.then(|| texts.iter().map(|text| i16::from(text.is_some())).collect());
                    let values: Vec<ByteArray> = texts.into_iter().flatten().collect();
                    chunk.typed::<ByteArrayType>().write_batch(&values, levels.as_deref(), None)?;
                }
                Kind::Moment | Kind::Number => {
                    let values = group.ints.remove(&column).unwrap_or_default();
                    chunk.typed::<Int64Type>().write_batch(&values, None, None)?;
                }
            }
            chunk.close()?;
        }
        let about = writer.close()?;
        self.file.flush()?;
        self.file.inner_mut().group(&about);
        Ok(())
    }
}

/// Records as the rows that they would be in a pack, and those that are none, with why.
pub fn rows_of(originals: &[Original]) -> (Columns, Vec<(ObjectKey, BadRecord)>) {
    let (mut rows, mut bad) = (Columns::default(), Vec::new());
    for original in originals {
        match row_of(original) {
            Ok(row) => row.onto(&mut rows),
            Err(why) => bad.push((original.object.clone(), why)),
        }
    }
    (rows, bad)
}

/// A row, before it is one of a group.
#[derive(Debug)]
pub struct Row {
    hash: String,
    texts: [(Column, Option<ByteArray>); 12],
    ints: [(Column, i64); 3],
    size: usize,
}

impl Row {
    /// The hash of the body, as `afterimage-hash` has it.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Bytes of the body.
    pub fn bytes(&self) -> usize {
        self.size
    }

    fn onto(self, group: &mut Columns) {
        for (column, text) in self.texts {
            group.texts.entry(column).or_default().push(text);
        }
        for (column, int) in self.ints {
            group.ints.entry(column).or_default().push(int);
        }
        group.rows += 1;
    }
}

/// A record as the row that it is in a pack.
pub fn row_of(original: &Original) -> std::result::Result<Row, BadRecord> {
    let foreign = |what: &str| BadRecord::Foreign(format!("`{what}` is missing, or is not what it should be"));
    let text = std::str::from_utf8(&original.body).map_err(|error| BadRecord::NotJson(error.to_string()))?;
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| match error.is_data() {
        true => BadRecord::Foreign(error.to_string()),
        false => BadRecord::NotJson(error.to_string()),
    })?;
    let Ours { format, table, cause, deleted_at, sequence, key } = body.afterimage;
    if format > 1 {
        return Err(BadRecord::Newer(format));
    }
    let cause = Cause::parse(cause).ok_or_else(|| foreign("afterimage.cause"))?;
    let deleted_at: jiff::Timestamp = deleted_at.parse().map_err(|_| foreign("afterimage.deleted_at"))?;
    let value = |place: usize| key.get(place).and_then(|name| body.dynamodb.keys.get(name.as_ref()));
    let (partition_key, partition_kind) = value(0).ok_or_else(|| foreign("dynamodb.Keys"))?.parts();
    let sort_key = value(1).map(KeyOf::parts);
    // The image is a part of the text: what is before it and after it is the rest.
    let image = body.dynamodb.image.get();
    let at = image.as_ptr().addr() - text.as_ptr().addr();
    let rest = [&text[..at], NO_IMAGE, &text[at + image.len()..]].concat();
    let hash = hash_of(text.as_bytes());
    let owned = |text: &str| Some(ByteArray::from(text));
    // What stands in the body as it is shares its memory.
    let shared = |part: &str| {
        let at = part.as_ptr().addr().checked_sub(text.as_ptr().addr());
        let inside = at.map(|at| at..at + part.len()).filter(|range| range.end <= text.len());
        Some(inside.map_or_else(|| ByteArray::from(part), |range| ByteArray::from(original.body.slice(range))))
    };
    let kind = |kind: &'static str| Some(ByteArray::from(Bytes::from_static(kind.as_bytes())));
    let texts = [
        (Column::Object, owned(original.object.as_str())),
        (Column::Table, shared(table)),
        (Column::PartitionKey, shared(partition_key)),
        (Column::PartitionKeyType, kind(partition_kind)),
        (Column::SortKey, sort_key.and_then(|(value, _)| shared(value))),
        (Column::SortKeyType, sort_key.and_then(|(_, name)| kind(name))),
        (Column::Cause, kind(cause.as_str())),
        (Column::Sequence, shared(sequence)),
        (Column::Image, shared(image)),
        (Column::Rest, Some(ByteArray::from(rest.into_bytes()))),
        (Column::Hash, owned(&hash)),
        (Column::Etag, owned(original.etag.as_str())),
    ];
    let ints = [
        (Column::DeletedAt, deleted_at.as_millisecond()),
        (Column::ImageAt, at as i64),
        (Column::Size, text.len() as i64),
    ];
    Ok(Row { hash, texts, ints, size: text.len() })
}

//! The columns of a pack, and some of them decoded.

use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::ByteArray;
use parquet::errors::Result;
use parquet::schema::types::{Type, TypePtr};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A column, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// Name of the object that the record is, or was.
    Object,
    /// Of which table.
    Table,
    /// First value of its key: text and digits as they are, binary in base64.
    PartitionKey,
    /// `S`, `N` or `B`.
    PartitionKeyType,
    /// Second value, if the key has one.
    SortKey,
    /// `S`, `N` or `B`.
    SortKeyType,
    /// `user` or `ttl`.
    Cause,
    /// When it was deleted, in Unix milliseconds.
    DeletedAt,
    /// Its number in the stream.
    Sequence,
    /// Its last image, in DynamoDB's JSON.
    Image,
    /// The rest of the object's body, with `null` where the image was.
    Rest,
    /// At which byte of the rest that is.
    ImageAt,
    /// Bytes of the object.
    Size,
    /// Hash of the body, as `afterimage-hash` has it.
    Hash,
    /// Tag of the object that was packed.
    Etag,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, which may be absent where it says so.
    Text {
        /// Not every row has one.
        optional: bool,
    },
    /// A moment, in Unix milliseconds.
    Moment,
    /// A whole number.
    Number,
}

const TEXT: Kind = Kind::Text { optional: false };
const MAYBE: Kind = Kind::Text { optional: true };

/// All columns with their names in the file.
pub const COLUMNS: [(Column, &str, Kind); 15] = [
    (Column::Object, "object", TEXT),
    (Column::Table, "table", TEXT),
    (Column::PartitionKey, "partition_key", TEXT),
    (Column::PartitionKeyType, "partition_key_type", TEXT),
    (Column::SortKey, "sort_key", MAYBE),
    (Column::SortKeyType, "sort_key_type", MAYBE),
    (Column::Cause, "cause", TEXT),
    (Column::DeletedAt, "deleted_at", Kind::Moment),
    (Column::Sequence, "sequence", TEXT),
    (Column::Image, "image", TEXT),
    (Column::Rest, "rest", TEXT),
    (Column::ImageAt, "image_at", Kind::Number),
    (Column::Size, "size", Kind::Number),
    (Column::Hash, "hash", TEXT),
    (Column::Etag, "etag", TEXT),
];

/// The schema of the file.
pub(super) fn schema() -> Result<TypePtr> {
    let fields = COLUMNS.iter().map(|(_, name, kind)| {
        let (physical, logical, repetition) = match kind {
            Kind::Text { optional: false } => (Physical::BYTE_ARRAY, Some(LogicalType::String), Repetition::REQUIRED),
            Kind::Text { optional: true } => (Physical::BYTE_ARRAY, Some(LogicalType::String), Repetition::OPTIONAL),
            Kind::Moment => {
                let moment = LogicalType::timestamp(true, TimeUnit::MILLIS);
                (Physical::INT64, Some(moment), Repetition::REQUIRED)
            }
            Kind::Number => (Physical::INT64, None, Repetition::REQUIRED),
        };
        let field = Type::primitive_type_builder(name, physical);
        Ok(Arc::new(field.with_logical_type(logical).with_repetition(repetition).build()?))
    });
    let fields = fields.collect::<Result<Vec<TypePtr>>>()?;
    Ok(Arc::new(Type::group_type_builder("deletion").with_fields(fields).build()?))
}

/// Some columns of some rows.
#[derive(Debug, Default)]
pub struct Columns {
    /// How many rows.
    pub rows: usize,
    pub(super) texts: BTreeMap<Column, Vec<Option<ByteArray>>>,
    pub(super) ints: BTreeMap<Column, Vec<i64>>,
}

impl Columns {
    /// The text of a row; `None`: it has none, or the column was not read.
    pub fn text(&self, column: Column, row: usize) -> Option<&str> {
        std::str::from_utf8(self.bytes(column, row)?).ok()
    }

    /// The same, not looked at.
    pub(super) fn bytes(&self, column: Column, row: usize) -> Option<&[u8]> {
        Some(self.texts.get(&column)?.get(row)?.as_ref()?.data())
    }

    /// The number of a row; `None`: the column was not read.
    pub fn int(&self, column: Column, row: usize) -> Option<i64> {
        self.ints.get(&column)?.get(row).copied()
    }

    /// Whether a column was read.
    pub fn has(&self, column: Column) -> bool {
        self.texts.contains_key(&column) || self.ints.contains_key(&column)
    }

    /// The same without some rows, which are sorted.
    #[must_use]
    pub fn without(mut self, rows: &[usize]) -> Columns {
        if rows.is_empty() {
            return self;
        }
        let is_kept: Vec<bool> = (0..self.rows).map(|row| rows.binary_search(&row).is_err()).collect();
        self.texts.values_mut().for_each(|texts| keep(texts, &is_kept));
        self.ints.values_mut().for_each(|ints| keep(ints, &is_kept));
        self.rows = is_kept.into_iter().filter(|is_kept| *is_kept).count();
        self
    }

    /// The first row whose object is not before that name: rows are sorted.
    pub fn from_object(&self, name: &str) -> usize {
        let (mut low, mut high) = (0, self.rows);
        while low < high {
            let middle = low.midpoint(high);
            match self.text(Column::Object, middle).is_some_and(|object| object < name) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }
}

fn keep<T>(values: &mut Vec<T>, is_kept: &[bool]) {
    let mut kept = is_kept.iter();
    values.retain(|_| kept.next().is_some_and(|is_kept| *is_kept));
}

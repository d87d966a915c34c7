//! Reading a pack by its parts: the footer, and of a row group the columns that are asked for. Whoever asks fetches the bytes.

use super::columns::{COLUMNS, Column, Columns, Kind};
use super::sums::{OWN_SUM, SUMS, TAIL, own_sum, parse_sums, sum_of};
use super::{GROUP_ROWS, VERSION};
use bytes::Bytes;
use parquet::column::reader::{ColumnReader, get_column_reader, get_typed_column_reader};
use parquet::data_type::{ByteArrayType, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{FooterTail, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::file::statistics::Statistics;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What a pack says of itself.
#[derive(Debug)]
pub struct Footer {
    metadata: ParquetMetaData,
    /// Of each column of each row group.
    sums: Vec<u64>,
    /// How many records it says it has.
    pub records: u64,
    /// What it says that its rows come to.
    pub digest: String,
}

/// How many bytes at the end of the file its footer takes, by its last bytes.
pub fn footer_length(end: &[u8]) -> Result<usize> {
    let tail = end.last_chunk::<TAIL>().ok_or_else(|| bad("it has fewer than 8 bytes"))?;
    Ok(FooterTail::try_new(tail)?.metadata_length() + TAIL)
}

/// Reads the footer, which ends those bytes, and has the checksum that it says. The library may panic over damaged ones, also
/// later, over places that make no sense: all of them are looked at here.
pub fn footer(end: &[u8]) -> Result<Footer> {
    let all: Vec<Column> = COLUMNS.iter().map(|(column, ..)| *column).collect();
    let read = || {
        let footer = footer_whole(end)?;
        for group in 0..footer.groups() {
            let _looked_at = footer.ranges(group, &all);
            let rows = usize::try_from(footer.group(group).num_rows()).ok();
            // Rows are looked for by the names that it says, and room is made for as many as it says.
            if rows.is_none_or(|rows| rows > GROUP_ROWS) || footer.objects(group).is_none() {
                return Err(bad("its end does not say which rows it has"));
            }
        }
        Ok(footer)
    };
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(bad("its end makes no sense")))
}

fn footer_whole(end: &[u8]) -> Result<Footer> {
    let start = end.len().checked_sub(footer_length(end)?).ok_or_else(|| bad("its end is not whole"))?;
    let whole = &end[start..];
    let metadata = ParquetMetaDataReader::decode_metadata(&whole[..whole.len() - TAIL])?;
    let said = |name: &str| {
        let all = metadata.file_metadata().key_value_metadata()?;
        all.iter().find(|said| said.key == name)?.value.clone()
    };
    let number = |name: &str| said(name).and_then(|text| text.parse::<u64>().ok());
    match number("afterimage.format") {
        Some(format) if format == u64::from(VERSION) => {}
        Some(format) if format > u64::from(VERSION) => {
            return Err(bad(&format!("its format is {format}: a newer version wrote it")));
        }
        Some(format) => return Err(bad(&format!("its format is {format}, which has no checksums"))),
        None => return Err(bad("it is no pack of ours")),
    }
    if said(OWN_SUM).is_none_or(|sum| own_sum(whole).is_none_or(|found| sum != found)) {
        return Err(bad("its end has another checksum than it says"));
    }
    let names = metadata.file_metadata().schema_descr().columns().iter().map(|column| column.name());
    if !names.eq(COLUMNS.iter().map(|(_, name, _)| *name)) {
        return Err(bad("its columns are not those of a pack"));
    }
    let missing = || bad("it does not say what it has");
    let (records, digest) = (number("afterimage.records"), said("afterimage.digest"));
    let sums = said(SUMS).and_then(|sums| parse_sums(&sums));
    let sums = sums.filter(|sums| sums.len() == metadata.num_row_groups() * COLUMNS.len()).ok_or_else(missing)?;
    Ok(Footer { records: records.ok_or_else(missing)?, digest: digest.ok_or_else(missing)?, sums, metadata })
}

impl Footer {
    /// How many row groups it has.
    pub fn groups(&self) -> usize {
        self.metadata.num_row_groups()
    }

    /// The first and the last object of a row group.
    pub fn objects(&self, group: usize) -> Option<(&str, &str)> {
        let Some(Statistics::ByteArray(told)) = self.group(group).column(0).statistics() else { return None };
        let (first, last) = (told.min_bytes_opt()?, told.max_bytes_opt()?);
        Some((std::str::from_utf8(first).ok()?, std::str::from_utf8(last).ok()?))
    }

    /// The bytes of the file that those columns of a row group take, each once; neighbours together.
    pub fn ranges(&self, group: usize, columns: &[Column]) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (place, (column, ..)) in COLUMNS.iter().enumerate() {
            if !columns.contains(column) {
                continue;
            }
            let (start, length) = self.group(group).column(place).byte_range();
            match ranges.last_mut() {
                Some(before) if before.end == start => before.end = start.saturating_add(length),
                _ => ranges.push(start..start.saturating_add(length)),
            }
        }
        ranges
    }

    /// Whether the bytes of a column of a row group are those that were written.
    fn check(&self, group: usize, place: usize, pieces: &Pieces) -> Result<()> {
        let (start, length) = self.group(group).column(place).byte_range();
        let length = usize::try_from(length).map_err(|_| bad("a column of it is too long"))?;
        match sum_of(&pieces.get_bytes(start, length)?) == self.sums[group * COLUMNS.len() + place] {
            true => Ok(()),
            false => {
                let name = COLUMNS[place].1;
                Err(bad(&format!("the column `{name}` of its row group {group} has another checksum than was written")))
            }
        }
    }

    fn group(&self, group: usize) -> &RowGroupMetaData {
        self.metadata.row_group(group)
    }
}

/// Pieces of a file, by where they begin.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// Bytes of the whole file.
    pub length: u64,
    /// What is there of it.
    pub pieces: BTreeMap<u64, Bytes>,
}

impl Length for Pieces {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Pieces {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(bytes::Buf::reader(self.from(start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let from = self.from(start)?;
        (from.len() >= length).then(|| from.slice(..length)).ok_or_else(|| bad("a piece of it is too short"))
    }
}

impl Pieces {
    fn from(&self, start: u64) -> Result<Bytes> {
        let piece = self.pieces.range(..=start).next_back();
        let from = piece.and_then(|(begins, piece)| {
            let skip = usize::try_from(start - begins).ok()?;
            (skip <= piece.len()).then(|| piece.slice(skip..))
        });
        from.ok_or_else(|| bad("a piece of it was not fetched"))
    }
}

/// Decodes columns of a row group, whose bytes are those that were written. The library may panic over bytes that were written
/// by somebody else: that is an error, too.
pub fn decode(footer: &Footer, group: usize, columns: &[Column], pieces: Pieces) -> Result<Columns> {
    let decoded = catch_unwind(AssertUnwindSafe(|| decode_whole(footer, group, columns, pieces)));
    decoded.unwrap_or_else(|_| Err(bad("its bytes make no sense")))
}

fn decode_whole(footer: &Footer, group: usize, columns: &[Column], pieces: Pieces) -> Result<Columns> {
    let about = footer.group(group);
    let rows = usize::try_from(about.num_rows()).map_err(|_| bad("it has a negative number of rows"))?;
    let pieces = Arc::new(pieces);
    let mut decoded = Columns { rows, ..Columns::default() };
    for (place, (column, _, kind)) in COLUMNS.into_iter().enumerate() {
        if !columns.contains(&column) {
            continue;
        }
        footer.check(group, place, &pieces)?;
        let pages = SerializedPageReader::new(pieces.clone(), about.column(place), rows, None)?;
        let chunk = get_column_reader(about.column(place).column_descr_ptr(), Box::new(pages));
        match kind {
            Kind::Text { optional } => {
                let texts = texts(chunk, rows, optional)?;
                decoded.texts.insert(column, texts);
            }
            Kind::Moment | Kind::Number => {
                let mut values = Vec::with_capacity(rows);
                get_typed_column_reader::<Int64Type>(chunk).read_records(rows, None, None, &mut values)?;
                whole(values.len(), rows)?;
                decoded.ints.insert(column, values);
            }
        }
    }
    Ok(decoded)
}

fn texts(chunk: ColumnReader, rows: usize, optional: bool) -> Result<Vec<Option<parquet::data_type::ByteArray>>> {
    let (mut levels, mut values) = (Vec::new(), Vec::with_capacity(rows));
    let mut reader = get_typed_column_reader::<ByteArrayType>(chunk);
    reader.read_records(rows, optional.then_some(&mut levels), None, &mut values)?;
    if !optional {
        whole(values.len(), rows)?;
        return Ok(values.into_iter().map(Some).collect());
    }
    whole(levels.len(), rows)?;
    let mut values = values.into_iter();
    Ok(levels.into_iter().map(|level| if level > 0 { values.next() } else { None }).collect())
}

fn whole(read: usize, rows: usize) -> Result<()> {
    if read == rows { Ok(()) } else { Err(bad("a column of it is not whole")) }
}

fn bad(why: &str) -> ParquetError {
    ParquetError::General(why.to_owned())
}

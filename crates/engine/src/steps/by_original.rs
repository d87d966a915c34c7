//! Copies of a destination in the order of their originals. Copies do not list in that order (`a+b.…` comes before
//! `a.…`), so they are sorted on disk, with bounded memory (I9, I11).
//!
//! What is collected stands in one piece of memory, as bytes: a chunk that is full is sorted and appended to one file as a
//! run, and the runs are merged while they are read. So memory has three bounds, none of which grows with the number of
//! copies or the length of their names: a chunk, a buffer per run, a page of what was merged. Sorting, writing and reading
//! the file happen on the runtime's blocking threads; what fits into one chunk needs neither file nor thread.
//!
//! The file has no name: whatever ends the process, the operating system takes it back.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::limits::{LIST_PAGE, SORT_BYTES, SORT_RUN_BUFFER, SORT_RUNS};
use lifecycle::ids::{KEY_BYTES_MAX, ObjectKey};
use lifecycle::time::UnixMs;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Error, ErrorKind as IoErrorKind, Result as IoResult, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// One copy, as the listing has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedCopy {
    /// The original's key.
    pub original: ObjectKey,
    /// The copy's key.
    pub copy: ObjectKey,
    /// When its bytes were written.
    pub written_at: UnixMs,
}

impl ListedCopy {
    /// A copy that a restore waits for.
    pub fn waiting(original: &ObjectKey, copy: &ObjectKey) -> ListedCopy {
        ListedCopy { original: original.clone(), copy: copy.clone(), written_at: UnixMs::default() }
    }
}

/// Collects copies in any order.
pub struct Collect {
    chunk: Chunk,
    runs: Runs,
    chunk_bytes: usize,
}

/// Gives them back in the order of their originals.
pub struct ByOriginal {
    page: VecDeque<ListedCopy>,
    rest: Rest,
    scratch: PathBuf,
}

/// What comes after the page.
enum Rest {
    Memory { chunk: Chunk, read: usize },
    Disk(Merge),
    Nothing,
}

impl Collect {
    /// With nothing in it. What does not fit into memory goes to a nameless file in that folder.
    pub fn new(scratch: &Path) -> Collect {
        Collect::sized(scratch, SORT_BYTES, SORT_RUNS)
    }

    fn sized(scratch: &Path, chunk_bytes: usize, runs_max: usize) -> Collect {
        let runs = Runs { scratch: scratch.to_owned(), file: None, runs: Vec::new(), end: 0, runs_max };
        Collect { chunk: Chunk::default(), runs, chunk_bytes }
    }

    /// Adds one.
    pub async fn add(&mut self, copy: &ListedCopy) -> PortResult<()> {
        if self.chunk.bytes_with(copy) > self.chunk_bytes && !self.chunk.starts.is_empty() {
            self.spill().await?;
        }
        self.chunk.push(copy);
        Ok(())
    }

    /// That was all.
    pub async fn sorted(mut self) -> PortResult<ByOriginal> {
        let scratch = self.runs.scratch.clone();
        if self.runs.runs.is_empty() {
            self.chunk.sort();
            let rest = Rest::Memory { chunk: self.chunk, read: 0 };
            return Ok(ByOriginal { page: VecDeque::new(), rest, scratch });
        }
        if !self.chunk.starts.is_empty() {
            self.spill().await?;
        }
        let mut runs = self.runs;
        let merge = blocking(&scratch, move || {
            runs.reduce_to(runs.runs_max)?;
            runs.merge()
        });
        let rest = Rest::Disk(merge.await?);
        Ok(ByOriginal { page: VecDeque::new(), rest, scratch })
    }

    /// Makes a run of the chunk. After an error the collection is of no more use.
    async fn spill(&mut self) -> PortResult<()> {
        let scratch = self.runs.scratch.clone();
        let (mut chunk, mut runs) = (std::mem::take(&mut self.chunk), self.runs.take());
        let spilled = blocking(&scratch, move || {
            chunk.sort();
            runs.append(|file| chunk.write(file))?;
            chunk.clear();
            Ok((chunk, runs))
        });
        (self.chunk, self.runs) = spilled.await?;
        Ok(())
    }
}

impl ByOriginal {
    /// The original whose copies come next.
    pub async fn peek(&mut self) -> PortResult<Option<&ObjectKey>> {
        self.fill().await?;
        Ok(self.page.front().map(|copy| &copy.original))
    }

    /// All copies of that original, if they come next.
    pub async fn take(&mut self, original: &ObjectKey) -> PortResult<Vec<ListedCopy>> {
        let mut copies = Vec::new();
        while self.peek().await? == Some(original) {
            copies.extend(self.page.pop_front());
        }
        Ok(copies)
    }

    async fn fill(&mut self) -> PortResult<()> {
        if !self.page.is_empty() {
            return Ok(());
        }
        self.rest = match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Memory { chunk, read } => {
                let until = chunk.starts.len().min(read + LIST_PAGE);
                for start in &chunk.starts[read..until] {
                    let copy = Record::at(&chunk.bytes, *start as usize).and_then(|record| record.listed());
                    self.page.push_back(copy.map_err(|error| sort_error(&self.scratch, error))?);
                }
                Rest::Memory { chunk, read: until }
            }
            Rest::Disk(mut merge) => {
                let merged = blocking(&self.scratch, move || Ok((merge.page(LIST_PAGE)?, merge)));
                let (page, merge) = merged.await?;
                self.page = page;
                Rest::Disk(merge)
            }
            Rest::Nothing => Rest::Nothing,
        };
        Ok(())
    }
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(
    scratch: &Path,
    work: impl FnOnce() -> IoResult<T> + Send + 'static,
) -> PortResult<T> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|stopped| Err(Error::other(stopped)));
    done.map_err(|error| sort_error(scratch, error))
}

fn sort_error(scratch: &Path, error: Error) -> PortError {
    let kind = match error.kind() {
        IoErrorKind::StorageFull | IoErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        _ => ErrorKind::Internal("the sort's temporary file".to_owned()),
    };
    PortError::new("sort listing in", scratch.display(), kind).because(error)
}

/// The lengths of both keys and the time, before the keys themselves.
const RECORD_HEAD: usize = 2 + 2 + 8;
/// The longest record.
const RECORD_MAX: usize = RECORD_HEAD + 2 * KEY_BYTES_MAX;
const _: () = assert!(SORT_RUN_BUFFER >= RECORD_MAX && SORT_RUNS >= 2);

/// One copy as bytes, in a chunk or in the file.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Record<'a> {
    original: &'a [u8],
    copy: &'a [u8],
    written_at: i64,
}

impl<'a> Record<'a> {
    fn of(copy: &'a ListedCopy) -> Record<'a> {
        let (original, name) = (copy.original.as_str().as_bytes(), copy.copy.as_str().as_bytes());
        Record { original, copy: name, written_at: copy.written_at.0 }
    }

    fn bytes(&self) -> usize {
        RECORD_HEAD + self.original.len() + self.copy.len()
    }

    fn write(&self, to: &mut impl Write) -> IoResult<()> {
        for key in [self.original, self.copy] {
            let length = u16::try_from(key.len()).expect("a key has at most 1,024 bytes");
            to.write_all(&length.to_le_bytes())?;
        }
        to.write_all(&self.written_at.to_le_bytes())?;
        to.write_all(self.original)?;
        to.write_all(self.copy)
    }

    fn at(bytes: &'a [u8], start: usize) -> IoResult<Record<'a>> {
        let (original_bytes, rest) = bytes[start..].split_first_chunk().ok_or_else(damaged)?;
        let (copy_bytes, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (written_at, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (original, rest) = rest.split_at_checked(u16::from_le_bytes(*original_bytes).into()).ok_or_else(damaged)?;
        let (copy, _) = rest.split_at_checked(u16::from_le_bytes(*copy_bytes).into()).ok_or_else(damaged)?;
        Ok(Record { original, copy, written_at: i64::from_le_bytes(*written_at) })
    }

    fn listed(&self) -> IoResult<ListedCopy> {
        let key = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).map_err(Error::other)?;
            ObjectKey::new(text).map_err(Error::other)
        };
        let (original, copy) = (key(self.original)?, key(self.copy)?);
        Ok(ListedCopy { original, copy, written_at: UnixMs(self.written_at) })
    }
}

fn damaged() -> Error {
    Error::new(IoErrorKind::InvalidData, "it does not hold what was written to it")
}

/// Records in memory, and where each begins.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    starts: Vec<u32>,
}

impl Chunk {
    fn bytes_with(&self, copy: &ListedCopy) -> usize {
        self.bytes.len() + Record::of(copy).bytes() + (self.starts.len() + 1) * size_of::<u32>()
    }

    fn push(&mut self, copy: &ListedCopy) {
        self.starts.push(u32::try_from(self.bytes.len()).expect("a chunk is far smaller than 4 GiB"));
        Record::of(copy).write(&mut self.bytes).expect("writing to memory cannot fail");
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        let record = |start: &u32| Record::at(bytes, *start as usize).expect("written by `push`");
        self.starts.sort_unstable_by(|a, b| record(a).cmp(&record(b)));
    }

    fn write(&self, to: &mut impl Write) -> IoResult<()> {
        self.starts.iter().try_for_each(|start| Record::at(&self.bytes, *start as usize)?.write(to))
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }
}

/// Sorted runs, one behind the other in one file.
struct Runs {
    scratch: PathBuf,
    file: Option<File>,
    runs: Vec<Range<u64>>,
    end: u64,
    runs_max: usize,
}

impl Runs {
    fn take(&mut self) -> Runs {
        let (scratch, runs_max) = (self.scratch.clone(), self.runs_max);
        std::mem::replace(self, Runs { scratch, file: None, runs: Vec::new(), end: 0, runs_max })
    }

    /// Appends a run; `write` writes it.
    fn append(&mut self, write: impl FnOnce(&mut BufWriter<&File>) -> IoResult<()>) -> IoResult<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile_in(&self.scratch)?),
        };
        let mut writer = BufWriter::with_capacity(SORT_RUN_BUFFER, file);
        writer.seek(SeekFrom::Start(self.end))?;
        write(&mut writer)?;
        let end = writer.stream_position()?;
        writer.into_inner().map_err(|error| error.into_error())?;
        self.runs.push(self.end..end);
        self.end = end;
        Ok(())
    }

    /// Merges runs into longer ones until there are no more than so many.
    fn reduce_to(&mut self, runs_max: usize) -> IoResult<()> {
        while self.runs.len() > runs_max {
            let some: Vec<Range<u64>> = self.runs.drain(..runs_max).collect();
            let file = self.file()?;
            let mut merge = Merge::of(file, some)?;
            self.append(|to| {
                while let Some(copy) = merge.next()? {
                    Record::of(&copy).write(to)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn merge(&self) -> IoResult<Merge> {
        Merge::of(self.file()?, self.runs.clone())
    }

    fn file(&self) -> IoResult<File> {
        self.file.as_ref().ok_or_else(damaged)?.try_clone()
    }
}

/// Several runs, read as one.
struct Merge {
    file: File,
    runs: Vec<Run>,
    /// The first record of each run that has any left.
    heads: BinaryHeap<Reverse<(ListedCopy, usize)>>,
}

impl Merge {
    fn of(file: File, runs: Vec<Range<u64>>) -> IoResult<Merge> {
        let runs = runs.into_iter().map(|place| Run { place, buffer: Vec::new(), used: 0 }).collect();
        let mut merge = Merge { file, runs, heads: BinaryHeap::new() };
        (0..merge.runs.len()).try_for_each(|run| merge.advance(run))?;
        Ok(merge)
    }

    fn next(&mut self) -> IoResult<Option<ListedCopy>> {
        let Some(Reverse((copy, run))) = self.heads.pop() else { return Ok(None) };
        self.advance(run)?;
        Ok(Some(copy))
    }

    fn page(&mut self, limit: usize) -> IoResult<VecDeque<ListedCopy>> {
        let mut page = VecDeque::with_capacity(limit);
        while page.len() < limit
            && let Some(copy) = self.next()?
        {
            page.push_back(copy);
        }
        Ok(page)
    }

    fn advance(&mut self, run: usize) -> IoResult<()> {
        let head = self.runs[run].next(&self.file)?;
        self.heads.extend(head.map(|head| Reverse((head, run))));
        Ok(())
    }
}

/// One run, of which a piece is in memory.
struct Run {
    /// What is not in memory yet.
    place: Range<u64>,
    buffer: Vec<u8>,
    used: usize,
}

impl Run {
    fn next(&mut self, file: &File) -> IoResult<Option<ListedCopy>> {
        if self.buffer.len() - self.used < RECORD_MAX && !self.place.is_empty() {
            self.fill(file)?;
        }
        if self.used == self.buffer.len() {
            return Ok(None);
        }
        let record = Record::at(&self.buffer, self.used)?;
        self.used += record.bytes();
        record.listed().map(Some)
    }

    fn fill(&mut self, file: &File) -> IoResult<()> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let kept = self.buffer.len();
        let left = usize::try_from(self.place.end - self.place.start).unwrap_or(usize::MAX);
        self.buffer.resize(SORT_RUN_BUFFER.min(kept.saturating_add(left)), 0);
        file.read_exact_at(&mut self.buffer[kept..], self.place.start)?;
        self.place.start += (self.buffer.len() - kept) as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many copies, in an order that is none.
    fn copies(count: u64) -> Vec<ListedCopy> {
        let mixed = (0..count).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40);
        mixed
            .map(|n| {
                let original = format!("{}/ö-{n}", "long".repeat(usize::try_from(n % 90).unwrap_or_default()));
                let copy = ObjectKey::new(format!("{original}.copy-{}", n % 7)).unwrap();
                ListedCopy { original: ObjectKey::new(original).unwrap(), copy, written_at: UnixMs(n.cast_signed()) }
            })
            .collect()
    }

    async fn collected(collect: Collect) -> Vec<ListedCopy> {
        let mut sorted = collect.sorted().await.unwrap();
        let mut all = Vec::new();
        while let Some(original) = sorted.peek().await.unwrap().cloned() {
            let taken = sorted.take(&original).await.unwrap();
            assert!(!taken.is_empty() && taken.iter().all(|copy| copy.original == original));
            all.extend(taken);
        }
        assert_eq!(sorted.take(&all[0].original).await.unwrap(), []);
        all
    }

    #[tokio::test]
    async fn they_come_in_order_from_memory_from_disk_and_from_runs_merged_twice() {
        let folder = tempfile::tempdir().unwrap();
        let mut expected = copies(5_000);
        expected.sort();
        for (chunk_bytes, runs_max) in [(SORT_BYTES, SORT_RUNS), (64 * 1024, SORT_RUNS), (8 * 1024, 3), (1, 50)] {
            let mut collect = Collect::sized(folder.path(), chunk_bytes, runs_max);
            for copy in copies(5_000) {
                collect.add(&copy).await.unwrap();
            }
            assert_eq!(collect.runs.runs.is_empty(), chunk_bytes == SORT_BYTES);
            assert!(collected(collect).await == expected, "{chunk_bytes} bytes, {runs_max} runs at once");
        }
    }

    #[tokio::test]
    async fn memory_is_bounded_in_bytes_however_long_the_names_are_and_the_file_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let chunk_bytes = 64 * 1024;
        let mut collect = Collect::sized(folder.path(), chunk_bytes, 4);
        for n in 0..2_000 {
            let original = ObjectKey::new(format!("{n:0>900}")).unwrap();
            let copy = ObjectKey::new(format!("{original}.copy")).unwrap();
            collect.add(&ListedCopy { original, copy, written_at: UnixMs(n) }).await.unwrap();
            let Chunk { bytes, starts } = &collect.chunk;
            assert!(bytes.capacity() + starts.capacity() * size_of::<u32>() <= 2 * chunk_bytes);
        }
        assert!(collect.runs.runs.len() > 4);
        let mut sorted = collect.sorted().await.unwrap();
        assert!(sorted.peek().await.unwrap().is_some());
        let Rest::Disk(merge) = &sorted.rest else { panic!("it does not fit into memory") };
        assert!(merge.runs.len() <= 4 && merge.runs.iter().all(|run| run.buffer.capacity() <= 2 * SORT_RUN_BUFFER));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a crash leaves nothing");
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_fails_the_sort_only_when_it_is_needed() {
        let mut collect = Collect::sized(Path::new("/nowhere/at/all"), 4 * 1024, 4);
        collect.add(&copies(1)[0]).await.unwrap();
        let mut failed = None;
        for copy in copies(100) {
            failed = failed.or(collect.add(&copy).await.err());
        }
        let why = crate::report::chain(&failed.expect("100 of them are more than a chunk"));
        assert!(why.contains("/nowhere/at/all"), "{why}");
    }
}

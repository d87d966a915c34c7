//! Resolve: places in a stream become records while it has them, and what it has forgotten is named.

use crate::world::{Source, World, rules};
use engine::error::{ErrorKind, PortResult};
use engine::flows::resolve::{Resolving, Stretch};
use engine::memory::stream::MemoryStream;
use engine::ports::streams::ShardId;
use lifecycle::archive::{Cause, Sequence};
use lifecycle::time::UnixMs;

const DAY: UnixMs = UnixMs(1_795_219_200_000);

/// A stream whose one shard has so many records.
fn stream(records: usize) -> (MemoryStream, Vec<Sequence>) {
    let stream = MemoryStream::new();
    stream.begin("0", None);
    let all = (0..records).map(|n| stream.delete("0", &format!("k{n}"), DAY, Cause::User)).collect();
    (stream, all)
}

async fn resolve(stream: &MemoryStream, from: &Sequence, to: &Sequence) -> PortResult<(Vec<Sequence>, Option<String>)> {
    let stretch = Stretch { shard: ShardId("0".to_owned()), from: from.clone(), to: to.clone() };
    let mut resolving = Resolving::open(stream, &stretch).await?;
    let mut found = Vec::new();
    while let Some(records) = resolving.next().await? {
        found.extend(records.into_iter().map(|record| record.sequence));
    }
    assert_eq!(resolving.next().await?, None, "the end stays the end");
    Ok((found, resolving.lost().map(str::to_owned)))
}

#[tokio::test]
async fn a_stretch_is_read_from_its_first_to_its_last_record_and_no_further() {
    let (stream, all) = stream(20);
    assert_eq!(resolve(&stream, &all[4], &all[13]).await.unwrap(), (all[4..=13].to_vec(), None));
    assert_eq!(resolve(&stream, &all[7], &all[7]).await.unwrap(), (vec![all[7].clone()], None));
    stream.end("0");
    assert_eq!(resolve(&stream, &all[0], &all[19]).await.unwrap(), (all, None));
}

#[tokio::test]
async fn what_the_stream_has_forgotten_of_it_is_named_with_its_edges() {
    let (stream, all) = stream(9);
    stream.forget("0", 5);
    let (found, lost) = resolve(&stream, &all[2], &all[7]).await.unwrap();
    assert_eq!(found, all[5..=7]);
    let expected = format!("the stream has forgotten records from {} up to {} of the shard 0", all[2], all[5]);
    assert_eq!(lost, Some(expected));
    let (found, lost) = resolve(&stream, &all[1], &all[3]).await.unwrap();
    assert_eq!((found.len(), lost.unwrap().contains(&format!("records from {} to {}", all[1], all[3]))), (0, true));
    stream.forget_shard("0");
    let (found, lost) = resolve(&stream, &all[6], &all[7]).await.unwrap();
    assert_eq!((found.len(), lost.is_some()), (0, true));
}

#[tokio::test]
async fn what_the_stream_forgets_while_it_is_read_is_named_each_time() {
    let (stream, all) = stream(15);
    let stretch = Stretch { shard: ShardId("0".to_owned()), from: all[0].clone(), to: all[13].clone() };
    let mut resolving = Resolving::open(&stream, &stretch).await.unwrap();
    let mut found: Vec<Sequence> = Vec::new();
    while let Some(records) = resolving.next().await.unwrap() {
        found.extend(records.into_iter().map(|record| record.sequence));
        if [3, 6].contains(&found.len()) {
            // Two of those that come next.
            stream.forget("0", 5);
        }
    }
    assert_eq!(found, [&all[..3], &all[5..8], &all[10..=13]].concat());
    let told = |after: usize, up_to: usize| {
        format!("the stream has forgotten records after {} up to {} of the shard 0", all[after], all[up_to])
    };
    assert_eq!(resolving.lost(), Some(format!("{}; {}", told(2, 5), told(7, 10)).as_str()));
}

#[tokio::test]
async fn a_reading_that_fails_is_told_and_empty_pages_are_not_taken_for_the_end() {
    let _logs = World::new(Source::Versioned, rules());
    let (stream, all) = stream(3);
    stream.fail(1);
    assert_eq!(resolve(&stream, &all[0], &all[2]).await.unwrap_err().kind, ErrorKind::Unavailable);
    // The shard goes on, and has nothing behind its last record yet.
    let later = Sequence::new("99").unwrap();
    assert_eq!(resolve(&stream, &all[0], &later).await.unwrap_err().kind, ErrorKind::Unavailable);
}

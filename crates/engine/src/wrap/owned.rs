//! Whose a bucket in a service is: an object in it says so, and nobody else's policy writes there or deletes from it.
//!
//! Place: around the copiers and the purger of a policy whose destination is a bucket that others reach too. Two policies
//! with two catalogs on one destination would each find the other's copies without a row, adopt them and purge them; a
//! mirror that is served from a new data folder would delete what its new, empty source has not. So the first policy that
//! works on a bucket marks it ([`OWNER_KEY`]), on the condition that no mark is there, and every process reads the mark
//! before its first write, and again every minute in which it writes. Whoever works with the same catalog and the same source
//! is the same owner. Reading needs no mark: a restore works with any data folder.
//!
//! A person may say that a policy takes a bucket over, once the data folder before is lost. A mirror is then refused all the
//! same while its source is empty, and where the bucket holds copies, which it would delete. A crash leaves the mark, whole,
//! or none. Laws: I3, V8.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::flows::reconcile::RESERVED_PREFIX;
use crate::limits::{OWNER_BYTES_MAX, OWNER_GOOD_FOR, OWNER_SAMPLE};
use crate::policy::Mode;
use crate::ports::objects::{
    Attributes, ByteStream, Copied, CopyRequest, Head, Listed, Object, ObjectCopy, ObjectPurge, ObjectRead,
    ObjectWrite, Onto, Page, PurgeItem, Purged, Retrieval, Written,
};
use crate::wrap::lazy::Lazy;
use async_trait::async_trait;
use futures_util::{TryStreamExt, stream};
use lifecycle::ids::{ETag, ObjectKey, VersionId};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The object that says whose a bucket is. It is never mirrored.
pub const OWNER_KEY: &str = ".afterimage/owner.toml";
/// Version of its layout.
const FORMAT: u32 = 1;

/// Who works on a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The policy.
    pub policy: String,
    /// What it does.
    pub mode: Mode,
    /// Which catalog it works with, and with which source where that is in a data folder: the same text for everyone who does.
    pub catalog: String,
    /// Where the catalog was when the bucket was marked; for messages.
    pub at: String,
}

impl Owner {
    fn is(&self, other: &Owner) -> bool {
        (&self.policy, self.mode, &self.catalog) == (&other.policy, other.mode, &other.catalog)
    }

    fn called(&self) -> String {
        let what = match self.mode {
            Mode::Copies => "the copies",
            Mode::Mirror => "the mirror",
        };
        format!("{what} of the policy `{}` of {} ({})", self.policy, self.at, self.catalog)
    }
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    owner: Owner,
}

/// What marks a bucket.
enum Mark {
    Of(Owner),
    /// It does not read back; why.
    Unreadable(String),
}

impl Mark {
    fn told(&self) -> String {
        match self {
            Mark::Of(owner) => format!("it holds {}", owner.called()),
            Mark::Unreadable(why) => format!("{OWNER_KEY} does not say whose it is ({why})"),
        }
    }
}

/// What to do with a bucket that is another's, or that nobody marked and that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Refuse it.
    Own,
    /// Take it over: a person said so.
    TakeOver,
}

/// Who the policy is. Asked when it is first needed, since a catalog in a service must be asked itself.
#[async_trait]
pub trait Introduces: Send + Sync {
    /// The owner that the policy is.
    async fn owner(&self) -> PortResult<Owner>;
}

/// The right to write to a bucket and to delete from it, held once the bucket is known to be the policy's.
pub struct Ownership {
    name: String,
    bucket: Arc<dyn ObjectWrite>,
    source: Arc<dyn ObjectRead>,
    source_prefix: String,
    me: Box<dyn Introduces>,
    /// A person's word counts once: what was taken over and is taken by another since is lost to that one.
    may_take: AtomicBool,
    held: Lazy<()>,
}

impl Ownership {
    /// Of the bucket that is called `name`, for a policy that reads `source` under a prefix.
    pub fn new(
        name: String,
        bucket: Arc<dyn ObjectWrite>,
        source: Arc<dyn ObjectRead>,
        source_prefix: String,
        me: Box<dyn Introduces>,
        claim: Claim,
    ) -> Ownership {
        let may_take = AtomicBool::new(claim == Claim::TakeOver);
        Ownership { name, bucket, source, source_prefix, me, may_take, held: Lazy::new() }
    }

    /// Returns when the bucket is the policy's. Errors: it is another's (`NotSetUp`), or that cannot be told.
    pub async fn hold(&self) -> PortResult<()> {
        let claim = || async {
            self.claim().await?;
            self.may_take.store(false, Ordering::Release);
            Ok(())
        };
        self.held.get_fresh(OWNER_GOOD_FOR, claim).await
    }

    /// A copier into the bucket.
    pub fn copier(self: &Arc<Self>, inner: Arc<dyn ObjectCopy>) -> Arc<dyn ObjectCopy> {
        Arc::new(Owned { ownership: Arc::clone(self), inner })
    }

    /// The bucket, to write what is the program's own.
    pub fn writer(self: &Arc<Self>) -> Arc<dyn ObjectWrite> {
        Arc::new(Owned { ownership: Arc::clone(self), inner: Arc::clone(&self.bucket) })
    }

    /// A purger of the bucket.
    pub fn purger(self: &Arc<Self>, inner: Arc<dyn ObjectPurge>) -> Arc<dyn ObjectPurge> {
        Arc::new(Owned { ownership: Arc::clone(self), inner })
    }

    async fn claim(&self) -> PortResult<()> {
        let me = self.me.owner().await?;
        let onto = match self.mark().await? {
            Some((Mark::Of(owner), _)) if owner.is(&me) => return Ok(()),
            Some((Mark::Of(owner), _)) if (me.mode, owner.mode) == (Mode::Mirror, Mode::Copies) => {
                let what = format!("it holds {}, and a mirror would delete them: name an empty bucket", owner.called());
                return Err(self.failed(ErrorKind::NotSetUp(what)));
            }
            Some((mark, tag)) => {
                self.may_take_over(&me, mark.told()).await?;
                Onto::This(tag)
            }
            None => {
                if me.mode == Mode::Mirror
                    && let Some(key) = self.first_object(self.bucket.as_ref()).await?
                {
                    let what = format!("it holds {key}, and a mirror deletes what its source has not");
                    self.may_take_over(&me, what).await?;
                }
                Onto::Nothing
            }
        };
        self.put_mark(&me, onto).await?;
        // Whoever marked it in the same moment is there now: what is read back decides.
        match self.mark().await? {
            Some((Mark::Of(owner), _)) if owner.is(&me) => Ok(()),
            Some((mark, _)) => Err(self.refused(&mark.told())),
            None => Err(self.failed(ErrorKind::Unavailable)),
        }
    }

    /// What marks the bucket, and its tag.
    async fn mark(&self) -> PortResult<Option<(Mark, ETag)>> {
        // Not a range of it: an empty object has none.
        let Some(mut object) = self.bucket.get(&owner_key(), None, None).await? else { return Ok(None) };
        let mut bytes = Vec::new();
        while bytes.len() <= OWNER_BYTES_MAX
            && let Some(piece) = object.body.try_next().await?
        {
            bytes.extend_from_slice(&piece);
        }
        let mark = match toml::from_str::<Stored>(&String::from_utf8_lossy(&bytes)) {
            Ok(Stored { format: FORMAT, owner }) => Mark::Of(owner),
            Ok(Stored { format, .. }) => {
                let what = format!("{OWNER_KEY} has format {format}, of a newer version: use that one");
                return Err(self.failed(ErrorKind::NotSetUp(what)));
            }
            Err(error) => Mark::Unreadable(error.message().to_owned()),
        };
        Ok(Some((mark, object.head.version.etag)))
    }

    async fn put_mark(&self, me: &Owner, onto: Onto) -> PortResult<()> {
        let text = toml::to_string(&Stored { format: FORMAT, owner: me.clone() });
        let text = text.map_err(|error| self.failed(ErrorKind::Internal("TOML".to_owned())).because(error))?;
        let attributes = Attributes { content_type: Some("application/toml".to_owned()), ..Attributes::default() };
        let key = owner_key();
        let put = |onto| {
            let body = Box::pin(stream::iter([Ok(text.clone().into())]));
            self.bucket.put(&key, body, &attributes, onto)
        };
        match put(onto).await {
            // A store without conditions: reading it back still finds one of two who mark it at once.
            Err(error) if error.kind == ErrorKind::Unsupported => put(Onto::Anything).await.map(drop),
            Ok(Written::Done(_) | Written::DestinationChanged) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// An object of a bucket under the policy's prefix that is none of the program's own.
    async fn first_object(&self, bucket: &dyn ObjectRead) -> PortResult<Option<ObjectKey>> {
        let behind = ObjectKey::new(format!("{RESERVED_PREFIX}\u{10FFFF}")).expect("a short key");
        for after in [None, Some(&behind)] {
            let listed = bucket.list(&self.source_prefix, after, OWNER_SAMPLE).await?.items;
            let key =
                listed.into_iter().map(|listed| listed.key).find(|key| !key.as_str().starts_with(RESERVED_PREFIX));
            if key.is_some() {
                return Ok(key);
            }
        }
        Ok(None)
    }

    async fn may_take_over(&self, me: &Owner, what: String) -> PortResult<()> {
        if !self.may_take.load(Ordering::Acquire) {
            return Err(self.refused(&what));
        }
        if me.mode == Mode::Mirror && self.first_object(self.source.as_ref()).await?.is_none() {
            let why = format!(
                "the source has no objects, so the mirror would delete everything in {}: put them into the source first \
                 (without this policy), then take the bucket over",
                self.name
            );
            return Err(self.failed(ErrorKind::NotSetUp(why)));
        }
        tracing::warn!(destination = self.name, policy = me.policy, "taken over: {what}");
        Ok(())
    }

    fn refused(&self, what: &str) -> PortError {
        let remedy = "name another destination; or, if that is lost or will never work on it again, start once with \
                      `afterimage serve --take-over`";
        self.failed(ErrorKind::NotSetUp(format!("{what}: {remedy}")))
    }

    fn failed(&self, kind: ErrorKind) -> PortError {
        PortError::new("take destination", &self.name, kind)
    }
}

fn owner_key() -> ObjectKey {
    ObjectKey::new(OWNER_KEY).expect("a short key")
}

/// A handle that works on a bucket of the policy's only.
struct Owned<T: ?Sized> {
    ownership: Arc<Ownership>,
    inner: Arc<T>,
}

#[async_trait]
impl ObjectCopy for Owned<dyn ObjectCopy> {
    async fn copy(&self, request: &CopyRequest) -> PortResult<Copied> {
        self.ownership.hold().await?;
        self.inner.copy(request).await
    }
}

#[async_trait]
impl ObjectRead for Owned<dyn ObjectWrite> {
    async fn head(&self, key: &ObjectKey, version: Option<&VersionId>) -> PortResult<Option<Head>> {
        self.inner.head(key, version).await
    }

    async fn get(
        &self,
        key: &ObjectKey,
        version: Option<&VersionId>,
        range: Option<Range<u64>>,
    ) -> PortResult<Option<Object>> {
        self.inner.get(key, version, range).await
    }

    async fn retrieve(&self, key: &ObjectKey, terms: &Retrieval) -> PortResult<()> {
        self.inner.retrieve(key, terms).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<Listed>> {
        self.inner.list(prefix, after, limit).await
    }
}

#[async_trait]
impl ObjectWrite for Owned<dyn ObjectWrite> {
    async fn put(&self, key: &ObjectKey, body: ByteStream, attributes: &Attributes, onto: Onto) -> PortResult<Written> {
        self.ownership.hold().await?;
        self.inner.put(key, body, attributes, onto).await
    }

    async fn heeds_conditions(&self, probe: &ObjectKey) -> PortResult<bool> {
        self.ownership.hold().await?;
        self.inner.heeds_conditions(probe).await
    }
}

#[async_trait]
impl ObjectPurge for Owned<dyn ObjectPurge> {
    async fn purge(&self, items: &[PurgeItem]) -> Vec<PortResult<Purged>> {
        match self.ownership.hold().await {
            Ok(()) => self.inner.purge(items).await,
            Err(error) => items.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::bucket::{MemoryBucket, Versioning};
    use crate::memory::clock::MemoryClock;
    use lifecycle::time::UnixMs;

    struct Me(Owner);

    #[async_trait]
    impl Introduces for Me {
        async fn owner(&self) -> PortResult<Owner> {
            Ok(self.0.clone())
        }
    }

    struct World {
        source: Arc<MemoryBucket>,
        copies: Arc<MemoryBucket>,
    }

    impl World {
        fn new() -> World {
            let clock = Arc::new(MemoryClock::at(UnixMs(1)));
            let bucket = |name| Arc::new(MemoryBucket::new(name, Versioning::Off, Arc::clone(&clock) as _));
            World { source: bucket("source"), copies: bucket("copies") }
        }

        fn put(bucket: &MemoryBucket, name: &str, text: &'static str) {
            let name = ObjectKey::new(name).unwrap();
            bucket.store(&name, text.into(), Attributes::default(), &Onto::Anything);
        }

        fn policy(&self, mode: Mode, catalog: &str, claim: Claim) -> Arc<Ownership> {
            let owner =
                Owner { policy: "docs".to_owned(), mode, catalog: catalog.to_owned(), at: format!("/of/{catalog}") };
            let (bucket, source) = (Arc::clone(&self.copies) as _, Arc::clone(&self.source) as _);
            Arc::new(Ownership::new(
                "s3://copies".to_owned(),
                bucket,
                source,
                "p/".to_owned(),
                Box::new(Me(owner)),
                claim,
            ))
        }
    }

    async fn refused(ownership: &Ownership) -> String {
        let error = ownership.hold().await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::NotSetUp(_)), "{error}: events wait for a person");
        error.to_string()
    }

    #[tokio::test]
    async fn who_works_with_another_catalog_is_refused_until_a_person_says_otherwise() {
        let world = World::new();
        let (own, taken) = (Claim::Own, Claim::TakeOver);
        world.policy(Mode::Copies, "a", own).hold().await.unwrap();
        world.policy(Mode::Copies, "a", own).hold().await.unwrap();
        let why = refused(&world.policy(Mode::Copies, "b", own)).await;
        assert!(why.contains("the copies of the policy `docs` of /of/a (a)") && why.contains("--take-over"), "{why}");
        refused(&world.policy(Mode::Mirror, "a", own)).await;
        world.policy(Mode::Copies, "b", taken).hold().await.unwrap();
        world.policy(Mode::Copies, "b", own).hold().await.unwrap();
        refused(&world.policy(Mode::Copies, "a", own)).await;
    }

    #[tokio::test]
    async fn a_mirror_takes_no_objects_of_others_and_never_for_an_empty_source() {
        let world = World::new();
        World::put(&world.copies, ".afterimage/journal/1", "ours");
        World::put(&world.copies, "beside", "of nobody's concern: not under the prefix");
        world.policy(Mode::Mirror, "first", Claim::Own).hold().await.unwrap();

        let world = World::new();
        World::put(&world.copies, "p/theirs", "theirs");
        let why = refused(&world.policy(Mode::Mirror, "a", Claim::Own)).await;
        assert!(why.contains("it holds p/theirs, and a mirror deletes what its source has not"), "{why}");
        World::put(&world.source, "elsewhere", "not under the prefix");
        let why = refused(&world.policy(Mode::Mirror, "a", Claim::TakeOver)).await;
        assert!(why.contains("the source has no objects"), "{why}");
        World::put(&world.source, "p/mine", "mine");
        world.policy(Mode::Mirror, "a", Claim::TakeOver).hold().await.unwrap();
        assert!(world.copies.contents().contains_key(&ObjectKey::new("p/theirs").unwrap()), "marking deletes nothing");
        world.policy(Mode::Copies, "b", Claim::TakeOver).hold().await.unwrap();
        let why = refused(&world.policy(Mode::Mirror, "a", Claim::TakeOver)).await;
        assert!(why.contains("it holds the copies of") && why.contains("a mirror would delete them"), "{why}");
    }

    #[tokio::test]
    async fn who_lost_a_bucket_notices_while_it_works() {
        for claim in [Claim::Own, Claim::TakeOver] {
            let world = World::new();
            let first = world.policy(Mode::Copies, "a", claim);
            first.hold().await.unwrap();
            world.policy(Mode::Copies, "b", Claim::TakeOver).hold().await.unwrap();
            first.held.grow_old(OWNER_GOOD_FOR / 2).await;
            first.hold().await.unwrap();
            first.held.grow_old(OWNER_GOOD_FOR).await;
            refused(&first).await;
        }
    }

    /// Behind a thousand objects of the program's own there may be others; and they alone are nothing that a source has.
    #[tokio::test]
    async fn what_is_the_program_s_own_neither_hides_others_nor_counts_as_content() {
        let world = World::new();
        let all = |catalog, claim| {
            let owner =
                Owner { policy: "docs".into(), mode: Mode::Mirror, catalog: String::from(catalog), at: String::new() };
            let (bucket, source) = (Arc::clone(&world.copies) as _, Arc::clone(&world.source) as _);
            Ownership::new("s3://copies".to_owned(), bucket, source, String::new(), Box::new(Me(owner)), claim)
        };
        for n in 0..=OWNER_SAMPLE {
            World::put(&world.copies, &format!(".afterimage/journal/{n}"), "ours");
        }
        World::put(&world.copies, "theirs", "theirs");
        assert!(refused(&all("a", Claim::Own)).await.contains("it holds theirs"));
        World::put(&world.source, OWNER_KEY, "it was a destination once");
        assert!(refused(&all("a", Claim::TakeOver)).await.contains("the source has no objects"));
    }

    #[tokio::test]
    async fn a_mark_that_does_not_read_is_another_s() {
        for text in
            ["", "format = 1", "format = 2\n[owner]\npolicy = \"docs\"\nmode = \"copies\"\ncatalog = \"a\"\nat = \"\""]
        {
            let world = World::new();
            World::put(&world.copies, OWNER_KEY, text);
            refused(&world.policy(Mode::Copies, "a", Claim::Own)).await;
            let taken = world.policy(Mode::Copies, "a", Claim::TakeOver).hold().await;
            assert_eq!(taken.is_err(), text.contains("format = 2"), "a newer version's is left alone: {text}");
        }
    }

    #[tokio::test]
    async fn what_is_another_s_is_neither_written_nor_purged() {
        struct Untouchable;
        #[async_trait]
        impl ObjectPurge for Untouchable {
            async fn purge(&self, _: &[PurgeItem]) -> Vec<PortResult<Purged>> {
                panic!("nothing may be purged")
            }
        }
        #[async_trait]
        impl ObjectCopy for Untouchable {
            async fn copy(&self, _: &CopyRequest) -> PortResult<Copied> {
                panic!("nothing may be written")
            }
        }
        let world = World::new();
        world.policy(Mode::Copies, "a", Claim::Own).hold().await.unwrap();
        let other = world.policy(Mode::Copies, "b", Claim::Own);
        let item = PurgeItem { key: owner_key(), version_id: None, if_match: None };
        let purged = other.purger(Arc::new(Untouchable)).purge(&[item.clone(), item]).await;
        assert!(purged.len() == 2 && purged.iter().all(Result::is_err));
        let version = lifecycle::event::Version { version_id: None, etag: "e".into(), size: 1 };
        let add_metadata = std::collections::BTreeMap::new();
        let request =
            CopyRequest { from: owner_key(), version, to: owner_key(), onto: Onto::Anything, add_metadata, seen: None };
        other.copier(Arc::new(Untouchable)).copy(&request).await.unwrap_err();
    }
}

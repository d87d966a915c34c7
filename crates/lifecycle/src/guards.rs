//! The protocol's guards, by name.
//!
//! Each guard closes a trace that lost or leaked something when the protocol was model-checked without it
//! (`docs/invariants.md`, "Why each guard is there"). In production every guard is on and [`Guards`] is empty. With the
//! feature `sabotage`, which only tests switch on, one can be taken out, to show that the simulation notices.

/// One guard of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// 1: a 404 or 412 of the copy does not end the handler: it settles.
    SettleAfterGone,
    /// 2: a 404 or 412 adopts bytes that an earlier, killed handler left.
    AdoptAfterGone,
    /// 3: a row is upserted, never overwritten, and a purge reads it once more.
    UpsertNeverRevives,
    /// 3: the second half, the strong read before bytes go.
    PurgeReadsAgain,
    /// 4: time-ordered policies look, after the read.
    LookWhenTimeOrdered,
    /// 4: the look comes after the read, never before.
    LookAfterRead,
    /// 5: a permanent delete of a version looks, and leaves a durable fact.
    VersionRemovedLooks,
    /// 6: rows with a lower-bound order are never judged without a look.
    FloatingLooks,
    /// 7: events older than 13 days only trigger a look.
    OldEventsOnlyLook,
    /// 8: reconcile treats differences as hints.
    DifferencesAreHints,
    /// 9: what `undelete` brought back is judged by time too.
    UndeleteOutlivesOldRemovals,
    /// 10: the claim is conditional on the row's rev.
    ClaimIsConditional,
    /// 10: bytes go after the claim.
    BytesAfterClaim,
    /// 11: reconcile settles what it touches.
    ReconcileSettles,
    /// 12: a looked copy has a name of its own.
    LookedNamesAreUnique,
    /// 13: a mirror makes equal, conditionally, then looks again.
    MirrorLooksAgain,
}

impl Guard {
    /// All of them, in the order of the document.
    pub const ALL: [Guard; 16] = [
        Guard::SettleAfterGone,
        Guard::AdoptAfterGone,
        Guard::UpsertNeverRevives,
        Guard::PurgeReadsAgain,
        Guard::LookWhenTimeOrdered,
        Guard::LookAfterRead,
        Guard::VersionRemovedLooks,
        Guard::FloatingLooks,
        Guard::OldEventsOnlyLook,
        Guard::DifferencesAreHints,
        Guard::UndeleteOutlivesOldRemovals,
        Guard::ClaimIsConditional,
        Guard::BytesAfterClaim,
        Guard::ReconcileSettles,
        Guard::LookedNamesAreUnique,
        Guard::MirrorLooksAgain,
    ];
}

/// Which guards hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    #[cfg(feature = "sabotage")]
    without: Option<Guard>,
}

impl Guards {
    /// Whether the guard holds: always, but in a test that took it out.
    #[cfg(not(feature = "sabotage"))]
    pub fn hold(self, _guard: Guard) -> bool {
        true
    }

    /// Whether the guard holds: always, but in a test that took it out.
    #[cfg(feature = "sabotage")]
    pub fn hold(self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    /// All guards but one.
    #[cfg(feature = "sabotage")]
    pub fn without(guard: Guard) -> Guards {
        Guards { without: Some(guard) }
    }
}

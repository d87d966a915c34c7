//! Walking over all keys of a policy, page by page: from the catalog where it lists its keys, else from the destination's
//! listing, whose names say which originals they are of.

use crate::error::PortResult;
use crate::limits::LIST_PAGE;
use crate::policy::{Mode, Policy};
use crate::steps::copy_rows::original_in_metadata;
use lifecycle::copy_key::{Original, parse};
use lifecycle::ids::ObjectKey;
use std::collections::BTreeSet;

/// A walk over the keys under a prefix.
pub struct Keys<'a> {
    policy: &'a Policy,
    prefix: String,
    after: Option<ObjectKey>,
    /// Given out, and some of their copies may follow on the next page.
    open: BTreeSet<ObjectKey>,
    done: bool,
}

impl<'a> Keys<'a> {
    /// Starts at the first key under `prefix`.
    pub fn under(policy: &'a Policy, prefix: &str) -> Keys<'a> {
        Keys { policy, prefix: prefix.to_owned(), after: None, open: BTreeSet::new(), done: false }
    }

    /// The next keys; `None` at the end. From a listing of the destination they come in the order of their copies, and one
    /// whose copies' names had to cut it may come again on a later page.
    pub async fn next(&mut self) -> PortResult<Option<Vec<ObjectKey>>> {
        if self.done {
            return Ok(None);
        }
        let (keys, next) = match &self.policy.keys {
            Some(keys) => {
                let page = keys.keys(&self.prefix, self.after.as_ref(), LIST_PAGE).await?;
                (page.items, page.next)
            }
            None => {
                let (mut keys, next) = self.list_destination().await?;
                keys.retain(|key| !self.open.contains(key));
                self.open.extend(keys.iter().cloned());
                // Copies of a key begin with it and a dot: beyond those it never comes again. So few stay here.
                self.open.retain(|key| next.as_ref().is_some_and(|next| may_follow(key, next)));
                (keys, next)
            }
        };
        self.done = next.is_none();
        self.after = next;
        Ok(Some(keys))
    }

    async fn list_destination(&self) -> PortResult<(Vec<ObjectKey>, Option<ObjectKey>)> {
        let page = self.policy.destination.list(&self.prefix, self.after.as_ref(), LIST_PAGE).await?;
        let mut keys = BTreeSet::new();
        for listed in page.items {
            // A mirror's objects are called as their originals.
            if self.policy.mode == Mode::Mirror {
                keys.insert(listed.key);
            } else if let Some(original) = original_of(self.policy, &listed.key).await?
                && original.as_str().starts_with(&self.prefix)
            {
                keys.insert(original);
            }
        }
        Ok((keys.into_iter().collect(), page.next))
    }
}

/// Whether copies of that key may follow in a listing that was read to there: they begin with it and a dot.
pub fn may_follow(key: &ObjectKey, read_to: &ObjectKey) -> bool {
    read_to.as_str().strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('.'))
}

/// The original of a copy, from its name, or from its metadata where the name had to cut it. `None`: not a copy.
pub async fn original_of(policy: &Policy, copy: &ObjectKey) -> PortResult<Option<ObjectKey>> {
    let Some(parsed) = parse(copy) else { return Ok(None) };
    Ok(match parsed.original {
        Original::Whole(key) => Some(key),
        cut @ Original::Cut { .. } => {
            let head = policy.destination.head(copy, None).await?;
            cut.resolve(head.as_ref().and_then(original_in_metadata))
        }
    })
}

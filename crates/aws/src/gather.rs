//! Calls that several callers share: what comes while calls are under way goes with the next one. Who comes alone goes alone,
//! at once; nobody waits for others to come.
//!
//! Whoever waits is also who calls: there is no task of its own. A caller that goes away takes along nothing but the call
//! that it was making: those who shared it are told that its end is unknown, and try again as after a lost answer.
//!
//! So a caller must be polled until it has its answer: whoever awaits something else, or another shared call, while it holds
//! futures that it does not poll may be holding the very one whose call it waits for. Keys side by side are polled as one
//! stream, and their shared calls are awaited inside it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Semaphore, oneshot};

/// Items of one kind. Two with the same key never share a call.
pub(crate) struct Gather<K, T, R> {
    waiting: Mutex<VecDeque<Waiting<K, T, R>>>,
    calls: Semaphore,
    at_once: usize,
}

struct Waiting<K, T, R> {
    /// `None`: it goes with any other.
    key: Option<K>,
    item: T,
    done: oneshot::Sender<R>,
}

impl<K: Ord + Clone, T, R> Gather<K, T, R> {
    /// So many calls at the same time, of so many items each at most.
    pub(crate) fn new(calls: usize, at_once: usize) -> Gather<K, T, R> {
        Gather { waiting: Mutex::default(), calls: Semaphore::new(calls), at_once }
    }

    /// Has one item done by `call`, alone or with others: it answers each, in order. `None`: whoever called has gone, and
    /// nobody knows what became of it.
    pub(crate) async fn share<F>(&self, key: Option<K>, item: T, call: impl Fn(Vec<T>) -> F) -> Option<R>
    where
        F: Future<Output = Vec<R>>,
    {
        let (done, mut answer) = oneshot::channel();
        self.lock().push_back(Waiting { key, item, done });
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer.ok(),
                _permit = self.calls.acquire() => {
                    let (items, callers): (Vec<T>, Vec<_>) = self.next().into_iter().unzip();
                    if items.is_empty() {
                        break; // The item is in somebody's call already.
                    }
                    // Who has gone needs no answer.
                    call(items).await.into_iter().zip(callers).for_each(|(answer, done)| drop(done.send(answer)));
                }
            }
        }
        answer.await.ok()
    }

    /// The next call's items, without those whose callers have gone.
    fn next(&self) -> Vec<(T, oneshot::Sender<R>)> {
        let mut waiting = self.lock();
        let (mut chosen, mut later, mut keys) = (Vec::new(), VecDeque::new(), BTreeSet::new());
        while chosen.len() < self.at_once
            && let Some(next) = waiting.pop_front()
        {
            let is_free = next.key.as_ref().is_none_or(|key| !keys.contains(key));
            if next.done.is_closed() {
                continue;
            }
            if is_free {
                keys.extend(next.key);
                chosen.push((next.item, next.done));
            } else {
                later.push_back(next);
            }
        }
        later.append(&mut waiting);
        *waiting = later;
        chosen
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Waiting<K, T, R>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::future::{join_all, pending};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::task::{unconstrained, yield_now};

    #[tokio::test]
    async fn who_comes_alone_goes_alone_and_who_comes_meanwhile_goes_together() {
        let gather = Gather::new(1, 10);
        let calls = Mutex::new(Vec::new());
        let call = |items: Vec<u32>| {
            calls.lock().unwrap().push(items.clone());
            async {
                yield_now().await;
                items.into_iter().map(|item| item * 2).collect()
            }
        };
        // The third has the second's key; twelve more wait for anybody.
        let keys = [Some("a"), Some("b"), Some("b")].into_iter().chain([None; 12]);
        let all = keys.zip(0..).map(|(key, item)| gather.share(key, item, call));
        let answers = join_all(all).await;
        assert_eq!(answers, (0..15).map(|item| Some(item * 2)).collect::<Vec<_>>());
        let expected = vec![vec![0], vec![1, 3, 4, 5, 6, 7, 8, 9, 10, 11], vec![2, 12, 13, 14]];
        assert_eq!(*calls.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn whose_item_is_under_way_waits_without_turning_round() {
        let gather: Gather<u32, u32, u32> = Gather::new(2, 10);
        let never = |_| pending();
        let mut callers: Vec<_> = (0..4).map(|item| Box::pin(unconstrained(gather.share(None, item, never)))).collect();
        // Two call, two wait; then the third calls for both, and the fourth finds a call free and nothing to do.
        for caller in &mut callers {
            assert!(caller.as_mut().now_or_never().is_none());
        }
        let mut fourth = callers.pop().unwrap();
        let mut third = callers.pop().unwrap();
        callers.pop();
        assert!(third.as_mut().now_or_never().is_none());
        callers.pop();
        assert!(fourth.as_mut().now_or_never().is_none());
        drop(third);
        assert_eq!(fourth.await, None);
    }

    #[tokio::test]
    async fn who_goes_away_takes_along_the_call_that_it_was_making_and_nothing_else() {
        let gather: Gather<u32, u32, u32> = Gather::new(1, 10);
        let begun = AtomicUsize::new(0);
        let never = |_| {
            begun.fetch_add(1, Ordering::Relaxed);
            pending()
        };
        let at_once = |items: Vec<u32>| async { items };
        let mut first = Box::pin(gather.share(None, 1, never));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(gather.share(None, 2, never));
        let mut third = Box::pin(gather.share(None, 3, at_once));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.as_mut().now_or_never().is_none(), "it calls for both now");
        assert_eq!(begun.load(Ordering::Relaxed), 2);
        drop(second);
        assert_eq!(third.await, None, "its call is lost");
        assert_eq!(gather.share(None, 4, at_once).await, Some(4));
    }
}

//! A clock that only moves when it is told to.
//!
//! The time of day and the time that passes are two things, as in the world: [`MemoryClock::set`] corrects the time of day
//! (forwards or back) and wakes nobody; [`MemoryClock::advance`] lets time pass, and sleepers wake when their span is over.
//! Writes nothing; a crash leaves nothing.

use crate::memory::lock;
use crate::ports::clock::Clock;
use async_trait::async_trait;
use lifecycle::time::{SpanMs, UnixMs};
use std::sync::Mutex;
use tokio::sync::watch;

/// What a sleeper does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleepers {
    /// They wait until somebody lets time pass.
    Wait,
    /// They let time pass themselves, and go on at once.
    Skip,
}

/// The clock.
#[derive(Debug)]
pub struct MemoryClock {
    now: Mutex<UnixMs>,
    /// Milliseconds that have passed since the clock was made.
    passed: watch::Sender<u64>,
    asleep: watch::Sender<usize>,
    sleepers: Sleepers,
}

impl MemoryClock {
    /// A clock that stands still; sleepers wait for [`MemoryClock::advance`].
    pub fn at(now: UnixMs) -> MemoryClock {
        MemoryClock::new(now, Sleepers::Wait)
    }

    /// A clock that a sleeper itself moves on, by the span that it sleeps: back-off without waiting.
    pub fn skipping(now: UnixMs) -> MemoryClock {
        MemoryClock::new(now, Sleepers::Skip)
    }

    fn new(now: UnixMs, sleepers: Sleepers) -> MemoryClock {
        MemoryClock { now: Mutex::new(now), passed: watch::Sender::new(0), asleep: watch::Sender::new(0), sleepers }
    }

    /// Corrects the time of day, forwards or back. Wakes nobody.
    pub fn set(&self, now: UnixMs) {
        *lock(&self.now) = now;
    }

    /// Lets time pass and wakes those whose span is over.
    pub fn advance(&self, span: SpanMs) {
        {
            let mut now = lock(&self.now);
            *now = now.plus(span);
        }
        self.passed.send_modify(|passed| *passed = passed.saturating_add(span.0));
    }

    /// Waits until so many are asleep: how a test knows that everybody has come to rest.
    pub async fn until_asleep(&self, sleepers: usize) {
        let mut asleep = self.asleep.subscribe();
        asleep.wait_for(|asleep| *asleep >= sleepers).await.expect("the clock holds the sender");
    }
}

/// Counts a sleeper for as long as it lives: a sleep that is dropped half-way is over, too.
struct Asleep<'a>(&'a watch::Sender<usize>);

impl<'a> Asleep<'a> {
    fn count(counter: &'a watch::Sender<usize>) -> Asleep<'a> {
        counter.send_modify(|asleep| *asleep += 1);
        Asleep(counter)
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|asleep| *asleep -= 1);
    }
}

#[async_trait]
impl Clock for MemoryClock {
    fn now(&self) -> UnixMs {
        *lock(&self.now)
    }

    async fn sleep(&self, span: SpanMs) {
        if self.sleepers == Sleepers::Skip {
            self.advance(span);
            return;
        }
        let mut passed = self.passed.subscribe();
        let wake_at = passed.borrow_and_update().saturating_add(span.0);
        let _asleep = Asleep::count(&self.asleep);
        passed.wait_for(|passed| *passed >= wake_at).await.expect("the clock holds the sender");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn sleepers_wake_when_time_passes_and_not_when_the_time_of_day_is_corrected() {
        let clock = Arc::new(MemoryClock::at(UnixMs(1_000)));
        let sleeper = tokio::spawn({
            let clock = Arc::clone(&clock);
            async move { clock.sleep(SpanMs(50)).await }
        });
        clock.until_asleep(1).await;
        clock.set(UnixMs(900));
        assert_eq!(clock.now(), UnixMs(900));
        clock.advance(SpanMs(49));
        assert_eq!(*clock.asleep.borrow(), 1);
        clock.advance(SpanMs(1));
        sleeper.await.unwrap();
        assert_eq!(clock.now(), UnixMs(950));
    }

    #[tokio::test]
    async fn a_skipping_clock_moves_on_by_what_is_slept() {
        let clock = MemoryClock::skipping(UnixMs(0));
        clock.sleep(SpanMs(70)).await;
        assert_eq!(clock.now(), UnixMs(70));
    }
}

//! Wrappers around ports. [`retry`] is part of every wired policy; [`tap`], [`recorder`] and [`faults`] are for tests.

#[cfg(feature = "testing")]
pub mod faults;
#[cfg(feature = "testing")]
pub mod recorder;
pub mod retry;
#[cfg(feature = "testing")]
pub mod tap;

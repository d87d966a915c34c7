//! Wrappers around ports. [`retry`] is part of every wired policy, [`through`] copies between stores that cannot copy to
//! each other; [`tap`], [`recorder`] and [`faults`] are for tests.

#[cfg(feature = "testing")]
pub mod faults;
#[cfg(feature = "testing")]
pub mod recorder;
pub mod retry;
#[cfg(feature = "testing")]
pub mod tap;
pub mod through;

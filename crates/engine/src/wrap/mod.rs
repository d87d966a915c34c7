//! Wrappers around ports. [`retry`] is part of every wired policy, [`owned`] of every one (with [`lazy`], as are handles of services) whose destination others reach too,
//! [`through`] copies between stores that cannot copy to each other; [`tap`], [`recorder`] and [`faults`] are for tests.

#[cfg(feature = "testing")]
pub mod faults;
pub mod lazy;
pub mod owned;
#[cfg(feature = "testing")]
pub mod recorder;
pub mod retry;
#[cfg(feature = "testing")]
pub mod tap;
pub mod through;

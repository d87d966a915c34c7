//! Wrappers around ports. [`retry`] is part of every wired policy, [`owned`] of every one whose destination others reach
//! too. Handles of services are asked for when they are needed ([`lazy`]). [`through`] copies between stores that cannot
//! copy to each other; [`unpacked`] shows what is in packs; [`tap`], [`recorder`] and [`faults`] are for tests.

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
pub mod unpacked;

//! The effects of Afterimage: ports to the world, flows (one file per verb, named like the rule in `lifecycle` that it
//! applies), the steps that they share, the driver, limits, reports and configuration.
//!
//! A flow loads what it needs, calls one pure function of `lifecycle`, and applies what it says. No flow reasons from what
//! an event says happens next: it notes the event's fact, then settles the key (`docs/invariants.md`).

pub mod clock;
pub mod config;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod driver;
pub mod error;
pub mod flows;
pub mod format;
pub mod limits;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod policy;
pub mod ports;
pub mod report;
pub mod steps;
pub mod wrap;

//! The flows, one file per verb.

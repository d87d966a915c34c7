//! Whether the disk has room for a whole run: one that is full fails after twenty minutes, in whatever test comes then.

use crate::run::{Sh, target_dir};
use anyhow::{Context, Result, bail};
use std::fs;

/// What a run from an empty target folder leaves there, and its tests take for a while, in KiB (measured, and a quarter more).
const NEEDED: u64 = 12 << 20;

/// Refuses to begin without room, where nothing is built yet.
pub(crate) fn look() -> Result<()> {
    let target = target_dir();
    if target.join("doc").exists() {
        return Ok(());
    }
    fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
    let told = Sh::new("df -Pk").arg(&target).read()?;
    let free = told.lines().nth(1).and_then(|line| line.split_whitespace().nth(3));
    match free.map(str::parse::<u64>) {
        Some(Ok(free)) if free < NEEDED => bail!(
            "{} has {} GiB free, and a run from an empty target folder takes {}: make room, or name another place by \
             CARGO_TARGET_DIR",
            target.display(),
            free >> 20,
            NEEDED >> 20
        ),
        Some(Ok(_)) => Ok(()),
        _ => bail!("df -Pk told nothing that is understood: {told}"),
    }
}

//! Virtual environments under the target folder, each made from a requirements file with exact versions, and made again
//! when that file changes.

use crate::run::{Sh, root, target_dir};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// The Python of the environment of that name, with everything installed that the file (from the project's folder) lists.
pub(crate) fn environment(name: &str, requirements: &str) -> Result<PathBuf> {
    let folder = target_dir().join(name);
    let (python, stamp) = (folder.join("bin").join("python"), folder.join("requirements.txt"));
    let wanted = fs::read_to_string(root().join(requirements)).with_context(|| format!("read {requirements}"))?;
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).context("remove the outdated environment")?;
    }
    create(&folder)?;
    Sh::of(&python)
        .words("-m pip install --quiet --disable-pip-version-check --requirement")
        .arg(requirements)
        .run()?;
    fs::write(&stamp, wanted).context("note what is installed")?; // last: an interrupted installation starts over
    Ok(python)
}

/// Makes an empty environment; on Debian the module for that is a package of its own.
fn create(folder: &Path) -> Result<()> {
    let venv = || Sh::new("python3 -m venv").arg(folder);
    if venv().run().is_ok() {
        return Ok(());
    }
    let is_root = Sh::new("id -u").read().is_ok_and(|id| id.trim() == "0");
    if !is_root || !Sh::new("apt-get --version").works() {
        bail!("python3 with its venv module is missing: install python3 and python3-venv");
    }
    Sh::new("apt-get update -q").run()?;
    Sh::new("apt-get install -q -y --no-install-recommends python3 python3-venv").run()?;
    venv().run().map(drop)
}

//! Stock clients against the real binary: boto3, aws, s5cmd and rclone, installed with exact versions into a virtual
//! environment under the target folder, and run by pytest.

use crate::run::{Outcome, Sh, root, target_dir};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

const TESTS: &str = "tests/clients";
const REQUIREMENTS: &str = "tests/clients/requirements.txt";

/// Builds the binary, sets the environment up if its requirements have changed, and runs the tests.
pub(crate) fn test() -> Result<Outcome> {
    Sh::new("cargo build --package afterimage").run()?;
    let binary = target_dir().join("debug").join("afterimage");
    let python = environment()?;
    let bin = python.parent().context("the environment's folder")?.to_owned();
    Sh::of(&python)
        .words("-m pytest -q")
        .arg(TESTS)
        .env("AFTERIMAGE_BIN", binary)
        .env("AFTERIMAGE_CLIENTS", bin)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .run()
}

/// The environment's Python, with everything installed.
fn environment() -> Result<PathBuf> {
    let folder = target_dir().join("venv");
    let (python, stamp) = (folder.join("bin").join("python"), folder.join("requirements.txt"));
    let wanted = fs::read_to_string(root().join(REQUIREMENTS)).with_context(|| format!("read {REQUIREMENTS}"))?;
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).context("remove the outdated environment")?;
    }
    create(&folder)?;
    Sh::of(&python)
        .words("-m pip install --quiet --disable-pip-version-check --requirement")
        .arg(REQUIREMENTS)
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

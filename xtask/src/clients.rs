//! Stock clients against the real binary: boto3, aws, s5cmd and rclone, installed with exact versions into a virtual
//! environment under the target folder, and run by pytest.

use crate::python::environment;
use crate::run::{Outcome, Sh, target_dir};
use anyhow::{Context, Result};

const TESTS: &str = "tests/clients";
const REQUIREMENTS: &str = "tests/clients/requirements.txt";

/// Builds the binary, sets the environment up if its requirements have changed, and runs the tests.
pub(crate) fn test() -> Result<Outcome> {
    Sh::new("cargo build --package afterimage").run()?;
    let binary = target_dir().join("debug").join("afterimage");
    let python = environment("venv", REQUIREMENTS)?;
    let bin = python.parent().context("the environment's folder")?.to_owned();
    Sh::of(&python)
        // Folders of tests that passed hold gigabytes, and nobody looks at them.
        .words("-m pytest -q -o tmp_path_retention_policy=failed -o tmp_path_retention_count=1")
        .arg(TESTS)
        .env("AFTERIMAGE_BIN", binary)
        .env("AFTERIMAGE_CLIENTS", bin)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .run()
}

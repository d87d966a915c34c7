//! The AWS adapters against an emulator of AWS, installed with exact versions into a virtual environment under the target
//! folder. Each test starts one of its own; without the emulator they are ignored.

use crate::python::environment;
use crate::run::{Outcome, Sh};
use anyhow::{Context, Result};

const REQUIREMENTS: &str = "tests/aws/requirements.txt";

/// Sets the environment up if its requirements have changed, and runs all tests of the crate, those that need it included.
pub(crate) fn test() -> Result<Outcome> {
    let python = environment("venv-aws", REQUIREMENTS)?;
    let emulator = python.parent().context("the environment's folder")?.join("ministack");
    let tests = match Sh::new("cargo nextest --version").works() {
        true => Sh::new("cargo nextest run -p afterimage-aws --run-ignored all"),
        false => Sh::new("cargo test -p afterimage-aws --lib --tests -- --include-ignored"),
    };
    tests.env("AFTERIMAGE_EMULATOR", emulator).run()
}

//! The AWS adapters and the Lambda functions against an emulator of AWS, installed with exact versions into a virtual environment under the target
//! folder. Each test starts one of its own; without the emulator they are ignored.

use crate::python::environment;
use crate::run::{Outcome, Sh};
use anyhow::{Context, Result};

const REQUIREMENTS: &str = "tests/aws/requirements.txt";

/// Sets the environment up if its requirements have changed, and runs the tests that need it. Built as the step `tests`
/// builds them: with the features of one package alone the SDK would be compiled once more.
pub(crate) fn test() -> Result<Outcome> {
    let python = environment("venv-aws", REQUIREMENTS)?;
    let emulator = python.parent().context("the environment's folder")?.join("ministack");
    if !Sh::new("cargo nextest --version").works() {
        let adapters =
            Sh::new("cargo test -p afterimage-aws --tests -- --ignored").env("AFTERIMAGE_EMULATOR", &emulator);
        adapters.run()?;
        let functions = Sh::new("cargo test -p afterimage-lambda --tests -- --ignored");
        functions.env("AFTERIMAGE_EMULATOR", &emulator).run()?;
        let binary = Sh::new("cargo test -p afterimage --test e2e -- --ignored services:: storms:: ownership::");
        return binary.env("AFTERIMAGE_EMULATOR", emulator).run();
    }
    let which = "package(afterimage-aws)|package(afterimage-lambda)|test(/^(services|storms|ownership)::/)";
    let tests = Sh::new(&format!("cargo nextest run --workspace --run-ignored only -E {which}"));
    tests.env("AFTERIMAGE_EMULATOR", emulator).run()
}

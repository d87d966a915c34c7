//! Project tasks. `cargo xtask ci` runs everything that CI runs, and sets up what it needs; `cargo xtask ci STEP…` runs
//! only those steps. The first failure stops it and says how to repeat the step.

mod aws;
mod clients;
mod documents;
mod licences;
mod purity;
mod python;
mod room;
mod run;
mod sources;
mod unused;

use anyhow::{Result, bail};
use run::{Outcome, Sh, run_steps};
use std::process::ExitCode;

/// A step: its name, what it checks, and how.
pub(crate) struct Step {
    name: &'static str,
    what: &'static str,
    run: fn() -> Result<Outcome>,
}

const STEPS: &[Step] = &[
    Step { name: "format", what: "rustfmt agrees", run: format },
    Step { name: "headers", what: "every source file says what it is for", run: sources::headers },
    Step { name: "documents", what: "files that documents and comments name exist", run: documents::named_files_exist },
    Step { name: "purity", what: "lifecycle has no way to do I/O or to know the time", run: purity::lifecycle_is_pure },
    Step { name: "licences", what: "licences, banned crates and sources of all dependencies", run: licences::check },
    Step { name: "unused", what: "every dependency is used", run: unused::every_dependency_is_named },
    Step { name: "advisories", what: "known vulnerabilities", run: licences::advisories },
    Step { name: "clippy", what: "no warning in any target", run: clippy },
    Step { name: "clippy-sabotage", what: "the same with the guards removable", run: clippy_sabotage },
    Step { name: "clippy-lean", what: "the same without tables of this machine", run: clippy_lean },
    Step { name: "docs", what: "rustdoc without a warning", run: docs },
    Step { name: "tests", what: "all Rust tests but the simulation", run: tests },
    Step { name: "full-disk", what: "a disk that is really full loses nothing", run: full_disk },
    Step { name: "simulation", what: "500 seeds, judged by an oracle", run: simulation },
    Step { name: "sabotage", what: "each guard, taken out, is missed", run: sabotage },
    Step { name: "doctests", what: "examples in comments", run: doctests },
    Step { name: "aws", what: "the AWS adapters and functions against an emulator", run: aws::test },
    Step { name: "clients", what: "stock clients against the binary", run: clients::test },
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["ci"] => room::look().and_then(|()| run_steps(&STEPS.iter().collect::<Vec<_>>())),
        ["ci", ref names @ ..] => named(names).and_then(|steps| run_steps(&steps)),
        _ => {
            eprintln!("usage: cargo xtask ci [STEP…]\n\nsteps:");
            STEPS.iter().for_each(|step| eprintln!("  {:16} {}", step.name, step.what));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn named(names: &[&str]) -> Result<Vec<&'static Step>> {
    let step = |name: &&str| match STEPS.iter().find(|step| step.name == *name) {
        Some(step) => Ok(step),
        None => bail!("there is no step `{name}`; `cargo xtask` lists them"),
    };
    names.iter().map(step).collect()
}

fn format() -> Result<Outcome> {
    Sh::new("cargo fmt --all --check").run()
}

fn clippy() -> Result<Outcome> {
    Sh::new("cargo clippy --workspace --all-targets -- -D warnings").run()
}

fn clippy_sabotage() -> Result<Outcome> {
    Sh::new(
        "cargo clippy -p afterimage-lifecycle -p afterimage-engine --all-targets --features sabotage -- -D warnings",
    )
    .run()
}

fn clippy_lean() -> Result<Outcome> {
    Sh::new("cargo clippy -p afterimage --no-default-features -- -D warnings").run()
}

fn docs() -> Result<Outcome> {
    let line = "cargo doc --workspace --no-deps --document-private-items --features afterimage-engine/testing";
    // Nothing here is published: private items are documented, too, and may be linked to.
    Sh::new(line).env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links").run()
}

/// Runs tests by nextest where it is installed; else by cargo's own runner.
fn nextest_or_test(nextest: &str, test: &str) -> Result<Outcome> {
    match Sh::new("cargo nextest --version").works() {
        true => Sh::new(&format!("cargo nextest run {nextest}")).run(),
        false => Sh::new(&format!("cargo test {test}")).run(),
    }
}

fn tests() -> Result<Outcome> {
    nextest_or_test("--workspace -E not(binary(simulation))", "--workspace --lib --bins --tests --no-fail-fast")
}

/// The tests that fill a disk: each mounts a small one of its own, which not everybody may.
fn full_disk() -> Result<Outcome> {
    let probe = "t=$(mktemp -d) && mount -t tmpfs -o size=64k tmpfs $t && umount $t && rmdir $t";
    if !Sh::new("unshare --mount sh -c").arg(probe).works() {
        return Ok(Outcome::note("skipped: this user may not mount a file system"));
    }
    let which = "-p afterimage-local -p afterimage";
    match Sh::new("cargo nextest --version").works() {
        true => Sh::new(&format!("cargo nextest run {which} --run-ignored only full_disk")).run(),
        false => Sh::new(&format!("cargo test {which} full_disk -- --ignored")).run(),
    }
}

fn simulation() -> Result<Outcome> {
    let which = "-p afterimage-engine --test simulation";
    nextest_or_test(which, which)
}

fn sabotage() -> Result<Outcome> {
    let which = "-p afterimage-engine --features sabotage";
    nextest_or_test(&format!("{which} sabotage"), &format!("{which} --lib --tests sabotage"))
}

fn doctests() -> Result<Outcome> {
    Sh::new("cargo test --workspace --doc").run()
}

//! `lifecycle` is pure by its manifest, not by good will: it has no dependency that could do I/O, and no source line of it
//! names what the standard library offers for that.

use crate::licences::metadata;
use crate::run::Outcome;
use crate::sources::{files, read};
use anyhow::{Context, Result, bail};

const ALLOWED: [&str; 4] = ["base64", "jiff", "sha2", "thiserror"];
const FORBIDDEN: [&str; 11] = [
    "std::time",
    "std::net",
    "std::fs",
    "std::env",
    "std::io",
    "std::process",
    "std::thread",
    "std::sync",
    "::now()",
    "async fn",
    "println!",
];

/// Checks manifest and sources.
pub(crate) fn lifecycle_is_pure() -> Result<Outcome> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("packages in the metadata")?;
    let lifecycle =
        packages.iter().find(|package| package["name"] == "afterimage-lifecycle").context("the lifecycle crate")?;
    let dependencies = lifecycle["dependencies"].as_array().context("its dependencies")?;
    let mut wrong = Vec::new();
    for dependency in dependencies.iter().filter(|dependency| dependency["kind"].is_null()) {
        let name = dependency["name"].as_str().context("a dependency's name")?;
        if !ALLOWED.contains(&name) {
            wrong.push(format!("it depends on {name}"));
        }
    }
    let sources: Vec<_> = files(&["rs"])?.into_iter().filter(|file| file.starts_with("crates/lifecycle/src")).collect();
    for file in &sources {
        for (place, line) in read(file)?.lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            if let Some(found) = FORBIDDEN.iter().find(|forbidden| code.contains(**forbidden)) {
                wrong.push(format!("{}:{}: {found}", file.display(), place + 1));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("lifecycle is not pure:\n  {}", wrong.join("\n  "));
    }
    Ok(Outcome::note(format!("{} files, {} dependencies at most", sources.len(), ALLOWED.len())))
}

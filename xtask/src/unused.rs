//! Every dependency is used: what nobody names only costs time to build and trust to give.

use crate::licences::metadata;
use crate::run::{Outcome, root};
use crate::sources::{files, read};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::Path;

/// Checks that each dependency of each crate here is named in a source file of that crate.
pub(crate) fn every_dependency_is_named() -> Result<Outcome> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("packages in the metadata")?;
    let all = files(&["rs"])?;
    let (mut unused, mut checked) = (Vec::new(), 0);
    for package in packages.iter().filter(|package| package["source"].is_null()) {
        let manifest = Path::new(package["manifest_path"].as_str().context("a manifest's path")?);
        let folder = manifest.parent().context("a manifest's folder")?.strip_prefix(root())?;
        let sources: Vec<_> = all.iter().filter(|file| file.starts_with(folder)).collect();
        let text = sources.into_iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?.concat();
        for dependency in package["dependencies"].as_array().context("its dependencies")? {
            let name = dependency["name"].as_str().context("a dependency's name")?;
            let library = dependency["rename"].as_str().unwrap_or(library_of(packages, name)).replace('-', "_");
            checked += 1;
            if !names(&text, &library) {
                unused.push(format!("{}: {name}", package["name"].as_str().unwrap_or_default()));
            }
        }
    }
    if !unused.is_empty() {
        bail!("these dependencies are named nowhere; remove them:\n  {}", unused.join("\n  "));
    }
    Ok(Outcome::note(format!("{checked} dependencies")))
}

/// What sources call a package: its library's name, which may be another (`md-5` is `md5`).
fn library_of<'a>(packages: &'a [Value], name: &'a str) -> &'a str {
    let targets = packages.iter().filter(|package| package["name"] == *name).filter_map(|it| it["targets"].as_array());
    let is_library = |target: &&Value| target["kind"][0].as_str().is_some_and(|kind| kind != "bin" && kind != "test");
    targets.flatten().find(is_library).and_then(|target| target["name"].as_str()).unwrap_or(name)
}

/// Whether a path in the text begins with that crate, or an attribute names it.
fn names(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = &text[at + name.len()..];
        let whole = !before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        whole && (after.starts_with("::") || after.starts_with(" as ") || after.starts_with(';'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_named_by_a_path_and_not_by_a_part_of_a_word() {
        assert!(names("use toml::Spanned;", "toml"));
        assert!(names("#[tokio::main]", "tokio"));
        assert!(!names("use basic_toml::x; // toml", "toml"));
    }
}

//! Documents and comments name files: a reader who follows a name must find one.

use crate::run::{Outcome, root};
use crate::sources::{files, read};
use anyhow::{Result, bail};
use std::path::Path;

/// A quoted name that begins with one of these is a file or folder of the project.
const FOLDERS: [&str; 7] = ["crates/", "docs/", "tests/", "xtask/", ".ci/", "bench/", "infra/"];

/// The same for single files beside the manifest.
const FILES: [&str; 6] =
    ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "deny.toml", "clippy.toml"];

/// Checks links of documents, and names in backticks of documents and sources.
pub(crate) fn named_files_exist() -> Result<Outcome> {
    let mut missing = Vec::new();
    let mut checked = 0;
    for file in files(&["md", "rs", "toml", "py"])? {
        if file.starts_with("xtask") {
            continue; // names folders that may come
        }
        let text = read(&file)?;
        let is_document = file.extension().is_some_and(|ext| ext == "md");
        let links = text.split("](").skip(1).filter(|_| is_document).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#') && !link.contains(' ')) {
            let target = link.split('#').next().unwrap_or(link);
            checked += 1;
            if !root().join(file.parent().unwrap_or(Path::new(""))).join(target).exists() {
                missing.push(format!("{}: {link}", file.display()));
            }
        }
        for name in quoted(&text).filter(|name| is_ours(name)) {
            checked += 1;
            if !leads_somewhere(name)? {
                missing.push(format!("{}: {name}", file.display()));
            }
        }
    }
    missing.dedup();
    if !missing.is_empty() {
        bail!("these names lead nowhere:\n  {}", missing.join("\n  "));
    }
    Ok(Outcome::note(format!("{checked} names")))
}

/// What stands in backticks within one line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Whether the file is there, and in it the test of that name: `FILE::TEST`.
fn leads_somewhere(name: &str) -> Result<bool> {
    let (file, test) = name.split_once("::").map_or((name, None), |(file, test)| (file, Some(test)));
    Ok(match test {
        _ if !root().join(file).exists() => false,
        None => true,
        Some(test) => {
            let text = read(Path::new(file))?;
            [format!("fn {test}("), format!("def {test}(")].iter().any(|definition| text.contains(definition))
        }
    })
}

/// Whether a quoted text is the plain name of a file: no placeholder, no pattern, no command.
fn is_ours(name: &str) -> bool {
    let plain = !name.contains(|c: char| c.is_whitespace() || "*<>{}…$|".contains(c));
    plain && (FOLDERS.iter().any(|folder| name.starts_with(folder)) || FILES.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_backticks_are_files_unless_they_are_patterns_or_commands() {
        let text = "see `docs/a.md` and `crates/*/src` or `cargo run`\n`README.md` `docs/<x>.md` `crates/engine`";
        let names: Vec<&str> = quoted(text).filter(|name| is_ours(name)).collect();
        assert_eq!(names, ["docs/a.md", "README.md", "crates/engine"]);
        let this = "xtask/src/documents.rs";
        let leads = |name: &str| leads_somewhere(name).unwrap();
        assert!(leads(this) && leads(&format!("{this}::leads_somewhere")));
        assert!(!leads(&format!("{this}::no_such_test")) && !leads("xtask/src/nowhere.rs::leads_somewhere"));
    }
}

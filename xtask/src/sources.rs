//! What every source file must look like.

use crate::run::{Outcome, root};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 5] = ["target", ".git", "node_modules", "afterimage-data", "__pycache__"];

/// All files of the project with one of these extensions, in order, relative to its folder.
pub(crate) fn files(extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type()?.is_dir() {
                if !SKIPPED.iter().any(|skipped| name == *skipped) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|ext| extensions.iter().any(|wanted| ext == *wanted)) {
                found.push(path.strip_prefix(root())?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The text of a file of the project.
pub(crate) fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(root().join(file)).with_context(|| format!("read {}", file.display()))
}

/// Every Rust file begins with `//!`: purpose, place, laws, and what a crash leaves.
pub(crate) fn headers() -> Result<Outcome> {
    let files = files(&["rs"])?;
    let mut bare = Vec::new();
    for file in &files {
        if !read(file)?.starts_with("//! ") {
            bare.push(file.display().to_string());
        }
    }
    if !bare.is_empty() {
        bail!("these files do not begin with `//!` and what they are for:\n  {}", bare.join("\n  "));
    }
    Ok(Outcome::note(format!("{} files", files.len())))
}

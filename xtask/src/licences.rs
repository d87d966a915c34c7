//! Licences, banned crates and sources of every dependency, by `deny.toml`.
//!
//! The check is made here from `cargo metadata`, so that a fresh machine need not build cargo-deny for it; where that is
//! installed it runs too, and it alone knows advisories.

use crate::run::{Outcome, Sh};
use crate::sources::read;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use spdx::expression::Expression;
use spdx::{Licensee, ParseMode};
use std::collections::BTreeSet;
use std::path::Path;

/// All packages of the lock file, with their dependencies.
pub(crate) fn metadata() -> Result<Value> {
    let text = Sh::new("cargo metadata --format-version 1 --all-features").read()?;
    serde_json::from_str(&text).context("read cargo's metadata")
}

/// Licences, bans and sources.
pub(crate) fn check() -> Result<Outcome> {
    let rules: toml::Table = read(Path::new("deny.toml"))?.parse().context("read deny.toml")?;
    let texts = |list: &toml::Value, what: &str| -> Result<Vec<String>> {
        let list = list.as_array().with_context(|| format!("{what} in deny.toml"))?;
        Ok(list.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect())
    };
    let allowed = texts(&rules["licenses"]["allow"], "licenses.allow")?;
    let allowed = allowed.iter().map(|name| Licensee::parse(name)).collect::<Result<Vec<_>, _>>()?;
    let registries = texts(&rules["sources"]["allow-registry"], "sources.allow-registry")?;
    let banned = rules["bans"]["deny"].as_array().context("bans.deny in deny.toml")?;
    let banned: Vec<&str> = banned.iter().filter_map(|ban| ban.get("crate")?.as_str()).collect();

    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("packages in the metadata")?;
    let built = built()?;
    let foreign: Vec<&Value> = packages.iter().filter(|package| is_foreign_and_built(package, &built)).collect();
    let wrong: Vec<String> =
        foreign.iter().filter_map(|package| complaint(package, &allowed, &registries, &banned)).collect();
    if !wrong.is_empty() {
        bail!("dependencies that `deny.toml` does not allow:\n  {}", wrong.join("\n  "));
    }
    if Sh::new("cargo deny --version").works() {
        Sh::new("cargo deny --all-features check licenses bans sources").run()?;
        return Ok(Outcome::note(format!("{} packages, cargo-deny agrees", foreign.len())));
    }
    Ok(Outcome::note(format!("{} packages", foreign.len())))
}

/// Every package that any target is built from, as `name vVERSION`. The lock file and the metadata hold more: what a feature
/// names by `package?/feature` stands there, whether or not anything switches that package on.
fn built() -> Result<BTreeSet<String>> {
    let tree = Sh::new("cargo tree --workspace --all-features --target all --edges normal,build,dev --prefix none");
    let lines = tree.arg("--format").arg("{p}").read()?;
    let package = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    Ok(lines.lines().map(package).collect())
}

fn is_foreign_and_built(package: &Value, built: &BTreeSet<String>) -> bool {
    let text = |field: &str| package[field].as_str().unwrap_or_default();
    !package["source"].is_null() && built.contains(&format!("{} v{}", text("name"), text("version")))
}

/// Why a package is not allowed.
fn complaint(package: &Value, allowed: &[Licensee], registries: &[String], banned: &[&str]) -> Option<String> {
    let name = format!("{} {}", package["name"].as_str()?, package["version"].as_str()?);
    if banned.iter().any(|ban| package["name"] == **ban) {
        return Some(format!("{name} is banned"));
    }
    let source = package["source"].as_str().unwrap_or_default();
    if !registries.iter().any(|registry| source.strip_prefix("registry+") == Some(registry)) {
        return Some(format!("{name} comes from {source}"));
    }
    let licence = package["license"].as_str().unwrap_or("a file of its own");
    let permitted = Expression::parse_mode(licence, ParseMode::LAX)
        .is_ok_and(|terms| terms.evaluate(|term| allowed.iter().any(|licence| licence.satisfies(term))));
    (!permitted).then(|| format!("{name} is under {licence}"))
}

/// Advisories, where cargo-deny is installed and its database can be reached.
pub(crate) fn advisories() -> Result<Outcome> {
    if !Sh::new("cargo deny --version").works() {
        return Ok(Outcome::note("skipped: cargo-deny is not installed"));
    }
    if !Sh::new("cargo deny fetch db").works() {
        return Ok(Outcome::note("skipped: the advisory database cannot be reached"));
    }
    Sh::new("cargo deny --all-features check advisories").run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_built_counts() {
        let built = BTreeSet::from(["ring v1.0.0".to_owned()]);
        let package = |version: &str, source: Value| json!({"name": "ring", "version": version, "source": source});
        assert!(is_foreign_and_built(&package("1.0.0", json!("registry+https://registry")), &built));
        assert!(!is_foreign_and_built(&package("2.0.0", json!("registry+https://registry")), &built));
        assert!(!is_foreign_and_built(&package("1.0.0", Value::Null), &built));
    }

    #[test]
    fn a_package_passes_only_with_an_allowed_licence_from_the_registry() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"].map(|name| Licensee::parse(name).expect("known"));
        let registries = ["https://registry".to_owned()];
        let judged = |name: &str, source: &str, licence: Value| {
            let package = json!({"name": name, "version": "1.0.0", "source": source, "license": licence});
            complaint(&package, &allowed, &registries, &["ring"])
        };
        let registry = "registry+https://registry";
        for fine in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-2.0) AND Unicode-3.0"] {
            assert_eq!(judged("a", registry, json!(fine)), None, "{fine}");
        }
        for bad in [json!("GPL-3.0"), json!("MIT AND GPL-3.0"), json!("whatever"), Value::Null] {
            assert!(judged("a", registry, bad.clone()).is_some(), "{bad}");
        }
        assert_eq!(judged("ring", registry, json!("MIT")), Some("ring 1.0.0 is banned".to_owned()));
        assert_eq!(judged("a", "git+https://x", json!("MIT")), Some("a 1.0.0 comes from git+https://x".to_owned()));
    }
}

//! The table that a person names on the command line, and its archive, if the configuration has one.

use crate::archiving::Archiving;
use crate::exit::Failure;
use crate::instance::Instance;
use crate::wiring::own_archive;
use engine::config::{ArchiveConfig, LOCAL_SERVICE, Remote, parse_table};
use std::sync::Arc;

/// The same, where this machine's own tables are known: one of them is meant as one of the configuration's is.
pub(super) async fn own_or_named(instance: &Instance, text: &str) -> Result<(Remote, Option<Arc<Archiving>>), Failure> {
    let archivings = instance.all_archivings();
    let mut archives: Vec<ArchiveConfig> = archivings.iter().map(|archiving| archiving.config.clone()).collect();
    // Those without a stream are archived by nobody, and are meant all the same.
    let own = match &instance.tables {
        Some(tables) => tables.all().await?,
        None => Vec::new(),
    };
    for name in own {
        let table = Remote { service: Some(LOCAL_SERVICE.to_owned()), name };
        if !archives.iter().any(|archive| archive.table == table) {
            archives.extend(own_archive(instance, &table.name));
        }
    }
    let (table, _) = table_named(&archives, text)?;
    let archiving = archivings.into_iter().find(|archiving| archiving.config.table == table);
    Ok((table, archiving))
}

/// `dynamodb://service@Orders`, or the name alone: of a table that the configuration has, or of one on AWS.
pub(super) fn table_named(archives: &[ArchiveConfig], text: &str) -> Result<(Remote, Option<ArchiveConfig>), Failure> {
    let name = text.strip_prefix("dynamodb://").unwrap_or(text);
    let mut named: Vec<&ArchiveConfig> = archives.iter().filter(|archive| archive.table.to_string() == name).collect();
    if named.is_empty() && name == text {
        named = archives.iter().filter(|archive| archive.table.name == name).collect();
    }
    match named.as_slice() {
        [archive] => Ok((archive.table.clone(), Some((*archive).clone()))),
        [] => {
            let table = parse_table(&format!("dynamodb://{name}"));
            Ok((table.map_err(|(what, fix)| Failure::usage(format!("{what}: {fix}")))?, None))
        }
        several => {
            let names: Vec<String> = several.iter().map(|archive| format!("dynamodb://{}", archive.table)).collect();
            Err(Failure::usage(format!("several tables are called {name}: name one of {}", names.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::config::Config;
    use std::path::Path;

    #[test]
    fn a_name_alone_is_a_configured_tables_or_one_on_aws() {
        let archive = |at: &str, n: u32| {
            format!(
                "[[archive]]\ntable = \"dynamodb://{at}\"\nservice = \"s{n}\"\ndestination = \"s3://archive-{n}\"\n"
            )
        };
        let services =
            "[[service]]\nname = \"a\"\nregion = \"eu-west-1\"\n[[service]]\nname = \"b\"\nregion = \"us-east-1\"\n";
        let text = [services, &archive("a@Orders", 1), &archive("b@Orders", 2), &archive("b@Other", 3)].concat();
        let archives = Config::parse(&format!("default_policy = \"off\"\n{text}"), Path::new("c")).unwrap().archives;
        let named = |text: &str| {
            let (table, archive) = table_named(&archives, text).map_err(|failure| failure.chain())?;
            Ok::<_, String>((table.to_string(), archive.map(|archive| archive.service.to_string())))
        };
        assert_eq!(named("Other"), Ok(("b@Other".to_owned(), Some("s3".to_owned()))));
        assert_eq!(named("dynamodb://a@Orders"), Ok(("a@Orders".to_owned(), Some("s1".to_owned()))));
        assert_eq!(named("dynamodb://Other"), Ok(("Other".to_owned(), None)), "written whole, it is what it says");
        assert_eq!(named("Third"), Ok(("Third".to_owned(), None)));
        assert!(named("Orders").unwrap_err().contains("dynamodb://a@Orders, dynamodb://b@Orders"));
        assert!(named("no table").unwrap_err().contains("is no name of a table"));
    }
}

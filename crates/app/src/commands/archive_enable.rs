//! `archive enable`: says what a table lacks before its deleted records can be archived, and switches it on once a person
//! has agreed.
//!
//! It needs no data folder, and no daemon does it: the rights that it takes are the person's, who has them for this once. A
//! crash leaves a part of it switched on; given again, the rest is.

use super::table_named::table_named;
use crate::answer::{Answer, Enabled};
use crate::cli::Enable;
use crate::exit::Failure;
use crate::output::{self, Style};
use crate::remote::{MissingTable, Remotes};
use engine::config::{Config, LOCAL_SERVICE, Remote};
use engine::flows::enable_archive::{Switch, Wanted, plan, switch_on};
use engine::ports::clock::Clock;
use engine::ports::tables::TableLook;
use lifecycle::archive::ServiceName;
use std::io::{self, BufRead, IsTerminal, Write};

/// Says it, asks, and does it.
pub(crate) async fn enable(config: &Config, asked: Enable, clock: &dyn Clock, style: Style) -> Result<bool, Failure> {
    let Enable { table, view, ttl, yes } = asked;
    let (remote, archive) = table_named(&config.archives, &table)?;
    if remote.service.as_deref() == Some(LOCAL_SERVICE) {
        return Err(Failure::usage(by_a_client(&remote.name, ttl.as_deref())));
    }
    let table = Remotes::new(config.services.clone(), MissingTable::Refuse, None).table(&remote).await?;
    let plan = plan(&remote.name, &table.setup().await?, &Wanted { view, ttl });
    let mut answer = Enabled {
        table: format!("dynamodb://{remote}"),
        switches: plan.switches.iter().map(Switch::in_words).collect(),
        left: plan.left,
        refused: plan.refused,
        done: false,
        configuration: archive.is_none().then(|| lines_for(&remote)),
    };
    if answer.is_open() {
        if !yes {
            output::show(&Answer::Enabled(answer.clone()), style)?;
            if !is_agreed(style)? {
                return Err(Failure::failed("nothing was changed"));
            }
        }
        for switch in &plan.switches {
            switch_on(&table, switch, clock).await?;
        }
        answer.done = true;
    }
    let answer = Answer::Enabled(answer);
    output::show(&answer, style)?;
    Ok(answer.is_success(false))
}

/// What a person gives instead for a table of this machine: whoever has its keys may do it, and this command has none.
fn by_a_client(table: &str, ttl: Option<&str>) -> String {
    let archived = "a table of this machine is archived from the moment it is made";
    match ttl {
        None => format!("{archived}: `afterimage status` says how it stands"),
        Some(attribute) => format!(
            "{archived}, and a client of its endpoint sets its time to live: aws dynamodb update-time-to-live --table-name \
             {table} --time-to-live-specification Enabled=true,AttributeName={attribute}"
        ),
    }
}

/// Asks whoever sits there.
pub(super) fn is_agreed(style: Style) -> Result<bool, Failure> {
    if style == Style::Json || !io::stdin().is_terminal() {
        return Err(Failure::usage("nobody can be asked here, and nothing was changed: --yes does it"));
    }
    let mut asked = io::stderr();
    write!(asked, "Do this? [y/N] ")?;
    asked.flush()?;
    let mut said = String::new();
    io::stdin().lock().read_line(&mut said)?;
    Ok(matches!(said.trim(), "y" | "Y" | "yes"))
}

/// The section that archives it.
fn lines_for(table: &Remote) -> String {
    let service = table.name.to_ascii_lowercase();
    let service = ServiceName::new(&service).map_or_else(|_| "records".to_owned(), |service| service.to_string());
    let at = table.service.as_ref().map(|service| format!("{service}@")).unwrap_or_default();
    let bucket = service.replace(['_', '.'], "-");
    format!(
        "[[archive]]\ntable = \"dynamodb://{table}\"\nservice = \"{service}\"\ndestination = \"s3://{at}{bucket}-archive\"   # \
         a bucket of yours"
    )
}

//! `archive drop`: what a person has seen, and nobody needs, goes out of an archive.

use super::archive::{known_service, of_service};
use crate::answer::{Answer, Done};
use crate::exit::Failure;
use crate::instance::Instance;
use crate::packing::to_pack;
use engine::flows::drop_object::DropObject;
use engine::steps::purge::Purger;
use lifecycle::ids::ObjectKey;

/// Drops the object wherever the service's records lie.
pub(super) async fn drop_object(
    instance: &Instance,
    service: &str,
    object: &str,
    who: &str,
) -> Result<Answer, Failure> {
    let service = known_service(instance, service).await?;
    let name = ObjectKey::new(object).map_err(Failure::usage)?;
    let mut done = Done::default();
    for archiving in to_pack(of_service(instance, &service).await?) {
        let archive = archiving.objects(instance)?;
        if archive.head(&name, None).await?.is_none() {
            continue;
        }
        let drop = DropObject {
            archive,
            purger: Purger::new(archiving.purger(instance)?),
            journal: instance.journal.clone(),
            clock: instance.clock.clone(),
            who: who.to_owned(),
        };
        done.of_archive(service.as_str(), drop.run(&service, &name).await);
    }
    match done.reports.is_empty() {
        true => Err(Failure::failed(format!("there is no object {name} where the records of {service} lie"))),
        false => Ok(Answer::Done(done)),
    }
}

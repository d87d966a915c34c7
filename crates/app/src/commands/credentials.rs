//! `credentials`: shows the endpoint's key pair, or makes a new one. A rotation ends the old pair at once, in a running
//! endpoint too.

use crate::answer::{Answer, Credentials};
use crate::exit::Failure;
use crate::instance::Instance;
use local::credentials::Credentials as Pair;
use local::endpoint::REGION;

/// Shows or rotates.
pub(crate) fn credentials(instance: &Instance, rotate: bool) -> Result<Answer, Failure> {
    let folder = instance.folder.path();
    let pair = if rotate { Pair::rotate(folder)? } else { Pair::load_or_create(folder)?.0 };
    if rotate {
        instance.keyring.replace(pair.clone());
    }
    Ok(Answer::Credentials(Credentials {
        access_key_id: pair.access_key().to_owned(),
        secret_access_key: pair.secret_key().to_owned(),
        region: REGION.to_owned(),
        endpoint: instance.endpoint.get().cloned(),
        tables_endpoint: instance.tables_endpoint.get().cloned(),
        rotated: rotate,
    }))
}

//! In the place of `tables.rs` where the feature `dynamodb` is switched off: there are no tables of this machine, whatever the
//! configuration says.

use crate::exit::Failure;
use crate::instance::{Instance, Untold};
use aws::AnswersHere;
use engine::config::Config;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// There are none.
pub(crate) enum Own {}

/// Opens nothing.
pub(crate) async fn open(_: &Path, config: &Config) -> Result<Option<Own>, Failure> {
    match config.tables {
        None => Ok(None),
        Some(_) => Err(Failure::usage(
            "this program was built without the feature `dynamodb`: write dynamodb_endpoint = \"off\" above the first \
             section of the configuration",
        )),
    }
}

impl Own {
    pub(crate) fn answers(&self) -> Arc<dyn AnswersHere> {
        match *self {}
    }

    pub(crate) async fn all(&self) -> Result<Vec<String>, Failure> {
        match *self {}
    }

    pub(crate) async fn with_streams(&self) -> Result<Vec<String>, Failure> {
        match *self {}
    }

    pub(crate) async fn untold(&self) -> Result<Untold, Failure> {
        match *self {}
    }

    pub(crate) async fn close(&self) {
        match *self {}
    }

    pub(crate) async fn serve(
        &self,
        _: &Arc<Instance>,
        _: TcpListener,
        _: &TaskTracker,
        _: (&CancellationToken, &CancellationToken),
    ) -> Result<JoinHandle<()>, Failure> {
        match *self {}
    }
}

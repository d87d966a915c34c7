//! `serve`: the endpoint, the driver, the schedules and the control socket over one data folder, until a signal.
//!
//! Stopping takes nothing new, finishes what is under way within a limit, and says what is left; what is left is in the
//! spool and is handled at the next start. Being killed instead loses nothing either: that is what the start repairs.

use crate::answer::Credentials as Pair;
use crate::archiving;
use crate::cli::Place;
use crate::control::server::{self, Runner};
use crate::execute::execute;
use crate::exit::{Failure, tell};
use crate::feeding;
use crate::folder::{Folder, IfMissing, is_data_folder};
use crate::hooks::Hooks;
use crate::instance::Instance;
use crate::intake;
use crate::limits::STOP_WAIT;
use crate::output::{Style, exports};
use crate::packing;
use crate::place::{Chosen, remember};
use crate::reach::reach;
use crate::remote::MissingTable;
use crate::schedule;
use crate::signals::Signals;
use crate::wiring;
use anyhow::Context;
use engine::config::{Config, TRIAL_SOURCE};
use engine::driver::Driver;
use engine::wrap::owned::Claim;
use local::clock::SystemClock;
use local::credentials::Credentials;
use local::endpoint::{Endpoint, REGION, serve_endpoint};
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Serves until SIGINT or SIGTERM.
pub(crate) async fn serve(
    chosen: Chosen,
    listen: Option<SocketAddr>,
    claim: Claim,
    missing_table: MissingTable,
    place: &Place,
    style: Style,
) -> Result<bool, Failure> {
    let Chosen { mut config, file } = chosen;
    if let Some(listen) = listen {
        config.endpoint.listen = listen;
    }
    refuse_open_address(&config)?;
    let signals = Signals::new()?;
    let (folder, listener, tables_listener) = take(&config).await?;
    if let Some(file) = &file {
        remember(folder.path(), file)?;
    }
    let instance = wiring::open(folder, config, claim, missing_table, Arc::new(SystemClock)).await?;
    reach(&instance).await?;
    let address = listener.local_addr().context("cannot read the endpoint's own address")?;
    instance.endpoint.set(format!("http://{address}")).expect("set once, here");
    if let Some(listener) = &tables_listener {
        let address = listener.local_addr().context("cannot read the DynamoDB endpoint's own address")?;
        instance.tables_endpoint.set(format!("http://{address}")).expect("set once, here");
    }
    let control = server::listen(instance.folder.path()).context("cannot open the control socket")?;

    let (cancel, driven) = (CancellationToken::new(), CancellationToken::new());
    let tasks = TaskTracker::new();
    let hooks = Arc::new(Hooks { instance: instance.clone(), tasks: tasks.clone(), cancel: cancel.clone() });
    let endpoint = Endpoint {
        store: instance.store.clone(),
        keyring: instance.keyring.clone(),
        hooks,
        clock: instance.clock.clone(),
        nonces: instance.nonces.clone(),
    };
    let serving = tokio::spawn(serve_endpoint(listener, endpoint, cancel.clone()));
    let driving = tokio::spawn(drive(instance.clone(), driven.clone()));
    for intake in instance.all_intakes() {
        tasks.spawn(intake::drive(instance.clone(), intake, driven.clone()));
    }
    for archiving in instance.all_archivings().into_iter().filter(|archiving| !archiving.is_own()) {
        tasks.spawn(archiving::follow(instance.clone(), archiving, driven.clone()));
    }
    for archiving in instance.all_archivings() {
        tasks.spawn(feeding::feed(instance.clone(), archiving, driven.clone()));
    }
    for archiving in packing::to_pack(instance.all_archivings()) {
        tasks.spawn(packing::pack_by_schedule(instance.clone(), archiving, cancel.clone()));
    }
    let serving_tables = match (&instance.tables, tables_listener) {
        (Some(tables), Some(listener)) => Some(tables.serve(&instance, listener, &tasks, (&cancel, &driven)).await?),
        _ => None,
    };
    tasks.spawn(server::serve(control, runner(&instance), instance.clock.clone(), cancel.clone()));
    for policy in instance.policies.all() {
        schedule::start(&instance, policy.name.as_str(), &tasks, &cancel);
    }
    announce(&instance, file.as_deref(), place, style)?;

    let running =
        Running { endpoints: [Some(serving), serving_tables].into_iter().flatten().collect(), driving, tasks };
    running.until_told(&instance, signals, (cancel, driven)).await
}

/// What runs until it is told to end.
struct Running {
    endpoints: Vec<JoinHandle<()>>,
    driving: JoinHandle<anyhow::Result<()>>,
    tasks: TaskTracker,
}

impl Running {
    /// Until a signal, or until the driver fails; then ends all of it in good order, unless another signal comes. `cancel` ends
    /// what takes anything new, `driven` all else.
    async fn until_told(
        mut self,
        instance: &Instance,
        mut signals: Signals,
        (cancel, driven): (CancellationToken, CancellationToken),
    ) -> Result<bool, Failure> {
        let failed = tokio::select! {
            () = signals.next() => None,
            ended = &mut self.driving => Some(ended),
        };
        tell("stopping: finishing what is under way (once more to leave at once)");
        cancel.cancel();
        driven.cancel();
        self.tasks.close();
        let finish = async {
            let mut endpoint = Ok(());
            for serving in self.endpoints {
                endpoint = endpoint.and(serving.await);
            }
            self.tasks.wait().await;
            match failed {
                Some(driver) => (endpoint, driver),
                None => (endpoint, self.driving.await),
            }
        };
        let result = tokio::select! {
            (endpoint, driver) = finish => {
                server::remove(instance.folder.path()).context("cannot remove the control socket")?;
                instance.close_saying_what_is_left().await;
                endpoint.context("the endpoint ended early").and(driver.context("the driver ended early")?)
            }
            () = signals.next() => Err(anyhow::anyhow!("left at once, on request: the next start goes on from here")),
            () = instance.clock.sleep(STOP_WAIT) => {
                Err(anyhow::anyhow!("not everything ended within {STOP_WAIT}: the next start goes on from here"))
            }
        };
        Ok(result.map(|()| true)?)
    }
}

async fn drive(instance: Arc<Instance>, cancel: CancellationToken) -> anyhow::Result<()> {
    let driver = Driver {
        queue: instance.queue.clone(),
        policies: instance.policies.clone(),
        clock: instance.clock.clone(),
        nonces: instance.nonces.clone(),
        metrics: instance.metrics.clone(),
    };
    driver.run(&cancel).await.context("the event queue failed")
}

fn runner(instance: &Arc<Instance>) -> Runner {
    let instance = instance.clone();
    Arc::new(move |command, who, feed, cancel| {
        let instance = instance.clone();
        Box::pin(async move { execute(&instance, command, &who, &feed, &cancel).await })
    })
}

impl Instance {
    /// Says what is left, then closes everything.
    async fn close_saying_what_is_left(&self) {
        let (backlog, unknown) = self.backlog().await;
        match (backlog.waiting, unknown.is_empty()) {
            (0, true) => tell("stopped: nothing is left to do"),
            (_, true) => tell(format_args!("stopped: {} events are left for the next start", backlog.waiting)),
            (_, false) => tell(format_args!("stopped: {}", unknown.join("; "))),
        }
        self.close().await;
    }
}

fn refuse_open_address(config: &Config) -> Result<(), Failure> {
    // What the file says of the other endpoint was judged when it was read.
    let listen = config.endpoint.listen;
    if listen.ip().is_loopback() || config.endpoint.allow_remote {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{listen} is reached from other machines, and the endpoint speaks plain HTTP: set `allow_remote = true` under \
         [s3_endpoint] in a configuration if that is meant, better behind a proxy with TLS"
    )))
}

/// Takes the ports and the data folder. The ports first: a start that cannot be must not leave a new folder behind.
async fn take(config: &Config) -> Result<(Folder, TcpListener, Option<TcpListener>), Failure> {
    match bind_all(config).await {
        Ok((s3, tables)) => Ok((Folder::open(&config.data_dir, IfMissing::Create)?, s3, tables)),
        // Whoever has the folder has the port, most likely, and is the one to be named.
        Err(no_port) if is_data_folder(&config.data_dir) => {
            Folder::open(&config.data_dir, IfMissing::Refuse)?;
            Err(no_port)
        }
        Err(no_port) => Err(no_port),
    }
}

async fn bind_all(config: &Config) -> Result<(TcpListener, Option<TcpListener>), Failure> {
    let s3 = bind(config.endpoint.listen, "").await?;
    let tables = match config.tables_listen() {
        Some(listen) if listen == config.endpoint.listen && listen.port() != 0 => {
            return Err(Failure::usage(format!(
                "both endpoints would listen on {listen}: write another `listen` under [dynamodb_endpoint], or none, and it \
                 takes the port behind the S3 endpoint's"
            )));
        }
        Some(listen) => {
            let instead =
                ", or set `listen` under [dynamodb_endpoint] in a configuration, or dynamodb_endpoint = \"off\"";
            Some(bind(listen, instead).await.map_err(|failure| failure.while_doing("no place for DynamoDB"))?)
        }
        None => None,
    };
    Ok((s3, tables))
}

async fn bind(listen: SocketAddr, or_instead: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(listen).await.map_err(|error| {
        let why = match error.kind() {
            ErrorKind::AddrInUse => format!(
                "cannot listen on {listen}: another process has the port; stop it, or choose another with \
                 `--listen {}:0` (any free port){or_instead}",
                listen.ip()
            ),
            ErrorKind::PermissionDenied => {
                format!("cannot listen on {listen}: ports below 1024 need special rights; choose another with --listen")
            }
            _ => format!("cannot listen on {listen}"),
        };
        Failure::Failed(anyhow::Error::new(error).context(why))
    })
}

/// Says what a person needs next, once everything listens.
fn announce(instance: &Instance, file: Option<&Path>, place: &Place, style: Style) -> Result<(), Failure> {
    let text = announcement(instance, file, place, style)?;
    let mut out = io::stdout();
    // Nobody may be there to read it: buckets and tables are served all the same.
    if let Err(error) = out.write_all(&text).and_then(|()| out.flush()) {
        tracing::warn!(%error, "what is said at the start cannot be written: `afterimage status` and `credentials show` say it");
    }
    Ok(())
}

fn announcement(instance: &Instance, file: Option<&Path>, place: &Place, style: Style) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    let (credentials, _) = Credentials::load_or_create(instance.folder.path())?;
    let endpoint = instance.endpoint.get().cloned().unwrap_or_default();
    let pair = Pair {
        access_key_id: credentials.access_key().to_owned(),
        secret_access_key: credentials.secret_key().to_owned(),
        region: REGION.to_owned(),
        endpoint: Some(endpoint.clone()),
        tables_endpoint: instance.tables_endpoint.get().cloned(),
        rotated: false,
    };
    if style == Style::Json {
        let ready = serde_json::json!({
            "endpoint": endpoint,
            "dynamodb_endpoint": pair.tables_endpoint,
            "data_dir": instance.folder.path(),
            "pid": std::process::id(),
            "access_key_id": pair.access_key_id,
            "region": pair.region,
        });
        writeln!(out, "{ready}")?;
        return Ok(out);
    }
    writeln!(out, "afterimage {} serves S3 at {endpoint}", env!("CARGO_PKG_VERSION"))?;
    if let Some(tables) = &pair.tables_endpoint {
        writeln!(out, "and DynamoDB at {tables}")?;
    }
    writeln!(out, "data folder {}", instance.folder.path().display())?;
    writeln!(out)?;
    match file {
        Some(file) => {
            for warning in instance.config.warnings() {
                writeln!(out, "warning: {warning}")?;
            }
            writeln!(out, "configuration {}", file.display())?;
            writeln!(out, "keys for clients: eval \"$({} credentials show)\"", called(place))?;
        }
        None => {
            write!(out, "{}", exports(&pair))?;
            writeln!(out)?;
            writeln!(out, "Paste the lines above into a second terminal, then try these:")?;
            writeln!(
                out,
                "  for i in 1 2 3 4; do echo \"draft $i\" > Assignment1.txt; aws s3 cp Assignment1.txt s3://{TRIAL_SOURCE}/; done"
            )?;
            writeln!(out, "  {} history Assignment1.txt", called(place))?;
            writeln!(out, "  aws s3 rm s3://{TRIAL_SOURCE}/Assignment1.txt")?;
            writeln!(out)?;
            if pair.tables_endpoint.is_some() {
                announce_tables(&mut out, place)?;
            }
            let terms = &instance.config.policies[0].terms;
            writeln!(
                out,
                "This is a short retention for trying out: {} copies of an object, and those of a deleted one go after {}.",
                terms.keep.last, terms.grace
            )?;
            writeln!(
                out,
                "For what you care about: `afterimage init`, then `afterimage serve --config afterimage.toml`."
            )?;
        }
    }
    writeln!(out)?;
    writeln!(out, "ready (Ctrl-C stops)")?;
    Ok(out)
}

/// The first steps with a table. The first line's answer is cut short: a pager would wait for a key.
fn announce_tables(out: &mut Vec<u8>, place: &Place) -> io::Result<()> {
    writeln!(out, "And with records of a table, which are archived when they are deleted:")?;
    writeln!(
        out,
        "  aws dynamodb create-table --table-name Orders --attribute-definitions AttributeName=id,AttributeType=S \
         --key-schema AttributeName=id,KeyType=HASH --billing-mode PAY_PER_REQUEST --query TableDescription.TableStatus"
    )?;
    writeln!(
        out,
        "  aws dynamodb put-item --table-name Orders --item '{{\"id\": {{\"S\": \"USER#1\"}}, \"total\": {{\"N\": \"12.5\"}}}}'"
    )?;
    writeln!(out, "  aws dynamodb delete-item --table-name Orders --key '{{\"id\": {{\"S\": \"USER#1\"}}}}'")?;
    writeln!(out, "  {} archive get Orders USER#1", called(place))?;
    writeln!(out)
}

/// How this program was called, with the flags that find the same folder again.
fn called(place: &Place) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "afterimage".to_owned());
    let mut words = vec![program];
    if let Some(folder) = &place.data_dir {
        words.push(format!("--data-dir {}", folder.display()));
    } else if let Some(file) = &place.config {
        words.push(format!("--config {}", file.display()));
    }
    words.join(" ")
}

//! The two servers of a run on AWS's protocols: S3, the program's own endpoint or a Garage, and DynamoDB, which is dynoxide in
//! a process of its own. Both make a write durable before they answer it: who is compared works on the same two.

use super::garage::Garage;
use super::job::Job;
use crate::client::{Client, Keys};
use crate::process::{Worker, stay};
use crate::serving::Serving;
use anyhow::{Context, Result};
use dynoxide::Database;
use local::credentials::Credentials;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::net::TcpListener;

/// Which servers and clients.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Beside {
    /// The program; its own endpoint is the S3 server.
    #[arg(long, default_value = "target/release/afterimage")]
    pub(crate) program: PathBuf,
    /// The S3 server instead: the program of a Garage.
    #[arg(long)]
    pub(crate) s3_server: Option<PathBuf>,
    /// A Python that has boto3: `cargo xtask ci clients` makes one.
    #[arg(long, default_value = "target/venv/bin/python")]
    pub(crate) python: PathBuf,
}

enum Store {
    Own(Serving),
    Garage(Garage),
}

/// The servers at work; stopped when dropped.
pub(crate) struct Servers {
    store: Store,
    dynamodb: Worker,
    keys: Keys,
    folder: PathBuf,
}

impl Servers {
    pub(crate) fn start(beside: &Beside, folder: &Path) -> Result<Servers> {
        let served = folder.join("served");
        fs::create_dir(&served)?;
        let (store, keys) = match &beside.s3_server {
            Some(program) => {
                let garage = Garage::start(program, &served)?;
                let keys = garage.keys.clone();
                (Store::Garage(garage), keys)
            }
            None => {
                let config = served.join("server.toml");
                fs::write(&config, "default_policy = \"off\"\n")?;
                let serving = Serving::start(&beside.program, &served, &["--config", &config.to_string_lossy()])?;
                let keys = Keys::of(&Credentials::load(&serving.data)?.context("`serve` makes credentials")?);
                (Store::Own(serving), keys)
            }
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("dynamodb").arg(served.join("dynamodb.sqlite"));
        Ok(Servers { store, dynamodb: Worker::start(command)?, keys, folder: folder.to_owned() })
    }

    pub(crate) fn s3_address(&self) -> SocketAddr {
        match &self.store {
            Store::Own(serving) => serving.address,
            Store::Garage(garage) => garage.address,
        }
    }

    pub(crate) fn dynamodb_address(&self) -> Result<SocketAddr> {
        Ok(self.dynamodb.said.parse()?)
    }

    /// What the S3 server is, in a table's words.
    pub(crate) fn name(&self) -> &'static str {
        match self.store {
            Store::Own(_) => "the program's own endpoint",
            Store::Garage(_) => "Garage, with fsync",
        }
    }

    /// The processes: S3, DynamoDB.
    pub(crate) fn ids(&self) -> [u32; 2] {
        let store = match &self.store {
            Store::Own(serving) => serving.id(),
            Store::Garage(garage) => garage.id(),
        };
        [store, self.dynamodb.id()]
    }

    /// A plain client of a bucket, which is made.
    pub(crate) async fn make_bucket(&self, name: &str) -> Result<Client> {
        let client = Client::of(self.s3_address(), name, &self.keys)?;
        client.make_bucket().await?;
        Ok(client)
    }

    /// Work on these servers, with a folder of its own.
    pub(crate) fn job(&self, source: &str, destination: &str, table: &str) -> Result<Job> {
        let folder = self.folder.join(destination);
        fs::create_dir_all(&folder)?;
        Ok(Job {
            dynamodb: format!("http://{}", self.dynamodb.said),
            access: self.keys.access.clone(),
            secret: self.keys.secret.clone(),
            source: source.to_owned(),
            destination: destination.to_owned(),
            table: table.to_owned(),
            ..Job::alone(&format!("http://{}", self.s3_address()), &folder, 0)
        })
    }

    /// Gives a client its credentials.
    pub(crate) fn known_to(&self, command: Command) -> Command {
        with_keys(command, &self.keys)
    }
}

/// Gives a client keys, and nothing else: nobody outside of this machine is asked, and nobody's own settings change what is
/// measured.
pub(crate) fn with_keys(mut command: Command, keys: &Keys) -> Command {
    command.env("AWS_ACCESS_KEY_ID", &keys.access).env("AWS_SECRET_ACCESS_KEY", &keys.secret);
    command.env("AWS_REGION", REGION).env("AWS_DEFAULT_REGION", REGION);
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_CONFIG_FILE", "/dev/null");
    command.env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null").env_remove("AWS_PROFILE");
    command
}

/// The region of both servers.
pub(crate) const REGION: &str = "us-east-1";

/// The process of the DynamoDB engine: it says its address, and runs until its standard input ends. Its file is SQLite's
/// with a write-ahead log and `synchronous = FULL`, which is what dynoxide leaves it at: a write is synced before it is answered.
pub(crate) async fn serve_dynamodb(file: &Path) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("bind a port of loopback")?;
    let address = listener.local_addr()?;
    let database = Database::new(&file.to_string_lossy())?;
    println!("ready {address}");
    let ended = tokio::task::spawn_blocking(stay);
    let until = async {
        // However it ended, nobody is there any more.
        drop(ended.await);
    };
    dynoxide::server::serve_with_shutdown(listener, database, until).await.map_err(anyhow::Error::msg)
}

//! A Garage as the S3 server: one node, SQLite for its metadata, everything synced before it is answered.

use crate::client::Keys;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const ACCESS_KEY: &str = "GK0123456789abcdef01234567";
const SECRET_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The process; killed when dropped.
pub(crate) struct Garage {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) keys: Keys,
}

impl Garage {
    pub(crate) fn start(program: &Path, folder: &Path) -> Result<Garage> {
        let program = program.canonicalize().with_context(|| format!("{} is not there", program.display()))?;
        let [address, rpc, admin] = free_addresses()?;
        let folder = folder.canonicalize()?;
        let config = folder.join("garage.toml");
        let at = folder.display();
        let text = format!(
            "metadata_dir = \"{at}/meta\"\ndata_dir = \"{at}/data\"\ndb_engine = \"sqlite\"\nmetadata_fsync = true\n\
             data_fsync = true\nreplication_factor = 1\nrpc_bind_addr = \"{rpc}\"\nrpc_public_addr = \"{rpc}\"\n\
             rpc_secret = \"{SECRET_KEY}\"\n[s3_api]\ns3_region = \"us-east-1\"\napi_bind_addr = \"{address}\"\n\
             [admin]\napi_bind_addr = \"{admin}\"\n"
        );
        fs::write(&config, text)?;
        let mut command = Command::new(&program);
        command.arg("-c").arg(&config).args(["server", "--single-node", "--default-bucket"]);
        command.env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY).env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY);
        command.env("GARAGE_DEFAULT_BUCKET", "default").env("RUST_LOG", "garage=info");
        let log = File::create(folder.join("garage.log"))?;
        let mut child = command.stdin(Stdio::null()).stdout(log).stderr(Stdio::piped()).spawn()?;
        let said = BufReader::new(child.stderr.take().context("standard error is piped")?);
        let garage =
            Garage { child, address, keys: Keys { access: ACCESS_KEY.to_owned(), secret: SECRET_KEY.to_owned() } };
        let mut lines = said.lines();
        let ready = |line: std::io::Result<String>| line.is_ok_and(|line| line.contains("S3 API server listening"));
        ensure!(lines.by_ref().any(ready), "the S3 server ended; its configuration is {}", config.display());
        // What it says from now on is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let mut allow = Command::new(&program);
        allow.arg("-c").arg(&config).args(["key", "allow", "--create-bucket", ACCESS_KEY]).stdout(Stdio::null());
        ensure!(allow.stderr(Stdio::null()).status()?.success(), "its key may not make buckets");
        Ok(garage)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Free ports of loopback, all different; given back just before they are used.
fn free_addresses() -> Result<[SocketAddr; 3]> {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
    let [a, b, c] = listeners.map(|listener| listener.and_then(|listener| listener.local_addr()));
    Ok([a?, b?, c?])
}

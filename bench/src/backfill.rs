//! Back-filling a bucket, with catalog rows, beside what people would use instead without any: `s5cmd cp` and `rclone copy`,
//! each at its best setting here. All three copy inside one server, the program's own endpoint, which makes every copy
//! durable before it answers; each round has a fresh bucket for each. CPU is that of the client process alone, from the
//! kernel's count.

use crate::client::Client;
use crate::process::run_to_end;
use crate::serving::Serving;
use crate::stats::{Table, median, median_ratio, n2};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use local::credentials::Credentials;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BODY: usize = 4096;
const IN_FLIGHT: usize = 32;
const FROM: &str = "from";

/// What one client took.
#[derive(Clone, Copy)]
struct Took {
    per_second: f64,
    cpu_us: f64,
}

/// Runs all rounds and prints them. `clients` is the folder with `s5cmd` and `rclone`.
pub(crate) async fn run(program: &Path, clients: &Path, folder: &Path, rounds: usize, objects: usize) -> Result<()> {
    let program = program.canonicalize().with_context(|| format!("{}: build it first", program.display()))?;
    let clients = clients.canonicalize().with_context(|| {
        format!("{} is not there: `cargo xtask ci clients` installs the clients", clients.display())
    })?;
    let served = folder.join("served");
    fs::create_dir(&served)?;
    fs::write(served.join("server.toml"), "default_policy = \"off\"\n")?;
    let config = served.join("server.toml");
    let serving = Serving::start(&program, &served, &["--config", &config.to_string_lossy()])?;
    let credentials = Credentials::load(&serving.data)?.context("`serve` makes credentials")?;
    let bench =
        Bench { program, clients, folder: folder.to_owned(), url: format!("http://{}", serving.address), credentials };

    bench.make(FROM)?;
    let source = Client::new(serving.address, FROM, &bench.credentials)?;
    let body = Bytes::from(vec![7u8; BODY]);
    stream::iter(0..objects)
        .map(|n| source.put(source.signed_put(&format!("folder-{:02}/object-{n:06}", n % 100)), body.clone()))
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    let mut table = Table::new(&[
        "round",
        "s5cmd/s",
        "rclone/s",
        "Afterimage/s",
        "s5cmd CPU µs",
        "rclone CPU µs",
        "Afterimage CPU µs",
    ]);
    let (mut rates, mut cpus) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let (s5cmd, rclone) = (bench.s5cmd(round, objects)?, bench.rclone(round, objects)?);
        let ours = bench.ours(round, objects)?;
        let figures = [s5cmd.per_second, rclone.per_second, ours.per_second, s5cmd.cpu_us, rclone.cpu_us, ours.cpu_us];
        table.row([vec![round.to_string()], figures.map(n2).to_vec()].concat());
        let faster = if s5cmd.per_second >= rclone.per_second { s5cmd } else { rclone };
        rates.push((ours.per_second, faster.per_second));
        cpus.push((ours.cpu_us, faster.cpu_us));
    }
    table.print(&format!("Back-filling {objects} objects of {BODY} bytes"));
    let ours = median(&rates.iter().map(|(ours, _)| *ours).collect::<Vec<_>>());
    println!(
        "median {ours:.0} objects/s; beside the faster of both: rate {:.2} (aim: at least 1), client CPU {:.2} (aim: at most 0.6)",
        median_ratio(&rates),
        median_ratio(&cpus)
    );
    Ok(())
}

struct Bench {
    program: PathBuf,
    clients: PathBuf,
    folder: PathBuf,
    url: String,
    credentials: Credentials,
}

impl Bench {
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("AWS_ENDPOINT_URL", &self.url).env("AWS_REGION", "us-east-1").env("S3_ENDPOINT_URL", &self.url);
        command.env("AWS_ACCESS_KEY_ID", self.credentials.access_key());
        command.env("AWS_SECRET_ACCESS_KEY", self.credentials.secret_key());
        command.current_dir(&self.folder);
        command
    }

    fn make(&self, bucket: &str) -> Result<()> {
        let made = self.command(&self.clients.join("s5cmd")).args(["mb", &format!("s3://{bucket}")]).status()?;
        ensure!(made.success(), "cannot make the bucket {bucket}");
        Ok(())
    }

    fn s5cmd(&self, round: usize, objects: usize) -> Result<Took> {
        let bucket = format!("to-s5cmd-{round}");
        self.make(&bucket)?;
        let mut command = self.command(&self.clients.join("s5cmd"));
        command.args(["--numworkers", "64", "cp", &format!("s3://{FROM}/*"), &format!("s3://{bucket}/")]);
        took(command, objects)
    }

    fn rclone(&self, round: usize, objects: usize) -> Result<Took> {
        let bucket = format!("to-rclone-{round}");
        self.make(&bucket)?;
        let mut command = self.command(&self.clients.join("rclone"));
        let remote = format!(":s3,provider=Other,env_auth=true,region=us-east-1,endpoint='{}':", self.url);
        command.args(["--config", "/dev/null", "--transfers", "32", "--checkers", "32", "--fast-list"]);
        command.args(["--s3-no-check-bucket", "copy", &format!("{remote}{FROM}"), &format!("{remote}{bucket}")]);
        took(command, objects)
    }

    fn ours(&self, round: usize, objects: usize) -> Result<Took> {
        let bucket = format!("to-ours-{round}");
        self.make(&bucket)?;
        let folder = self.folder.join(format!("ours-{round}"));
        fs::create_dir(&folder)?;
        let config = folder.join("ours.toml");
        // The data folder is made by a start without policies: one with this policy would back-fill by itself.
        fs::write(&config, "default_policy = \"off\"\n")?;
        drop(Serving::start(&self.program, &folder, &["--config", &config.to_string_lossy()])?);
        let service = format!("[[service]]\nname = \"there\"\nendpoint = \"{}\"\npath_style = true\n", self.url);
        let policy = format!(
            "[[policy]]\nname = \"bench\"\nsource = \"s3://there@{FROM}\"\ndestination = \"s3://there@{bucket}\"\nkeep = 3\n\
             grace = \"30d\"\n"
        );
        fs::write(&config, format!("default_policy = \"off\"\n{service}{policy}"))?;
        let mut command = self.command(&self.program);
        command.arg("--config").arg(&config).arg("--data-dir").arg(folder.join("data")).arg("backfill");
        took(command, objects)
    }
}

fn took(command: Command, objects: usize) -> Result<Took> {
    let (ran, _printed) = run_to_end(command)?;
    Ok(Took { per_second: objects as f64 / ran.seconds, cpu_us: ran.cpu_seconds * 1e6 / objects as f64 })
}

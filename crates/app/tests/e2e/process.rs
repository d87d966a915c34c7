//! A data folder, the daemon on it, and commands to it: all as processes of the real binary.

use crate::s3::S3;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// How often a condition is looked at before the test gives up; each look is a command, some 20 ms.
pub(crate) const LOOKS: usize = 3_000;

/// A folder for one test.
pub(crate) struct Folder {
    root: tempfile::TempDir,
    data: String,
    /// What every tool of AWS reads: access key and secret.
    keys: (String, String),
}

/// A running daemon; killed when dropped.
pub(crate) struct Serving {
    child: Killed,
    _out: BufReader<ChildStdout>,
    pub(crate) printed: String,
    pub(crate) s3: S3,
}

/// A process that never outlives its test, not even one that fails while it starts.
struct Killed(Child);

/// A command that runs; killed when dropped.
pub(crate) struct Running(Killed);

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder::named("data")
    }

    /// With a data folder of that name.
    pub(crate) fn named(data: &str) -> Folder {
        // An emulator takes any keys.
        let keys = ("test".to_owned(), "test".to_owned());
        Folder { root: tempfile::tempdir().unwrap(), data: data.to_owned(), keys }
    }

    /// Signs what it sends to services with the keys of that endpoint.
    pub(crate) fn signing_for(self, s3: &S3) -> Folder {
        Folder { keys: (s3.access_key.clone(), s3.secret_key.clone()), ..self }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.root.path().join(&self.data)
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
        command.env("AWS_ACCESS_KEY_ID", &self.keys.0).env("AWS_SECRET_ACCESS_KEY", &self.keys.1);
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        command.current_dir(self.root.path()).arg("--data-dir").arg(self.data()).args(words);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        let Output { status, stdout, stderr } = self.command(words).output().unwrap();
        Ended {
            code: status.code().unwrap_or(-1),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Begins a command.
    pub(crate) fn begin(&self, words: &[&str]) -> Running {
        let mut command = self.command(words);
        Running(Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    /// Begins a command where nothing can be written to standard output.
    pub(crate) fn begin_untold(&self, words: &[&str]) -> Running {
        let full = File::options().write(true).open("/dev/full").unwrap();
        Running(Killed(self.command(words).stdout(full).stderr(Stdio::piped()).spawn().unwrap()))
    }

    /// Runs a command that must succeed.
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let ended = self.run(words);
        assert_eq!(ended.code, 0, "{words:?}: {ended:?}\n{}", self.log());
        ended.out
    }

    /// What a command answers, as JSON.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let ended = self.run(&[words, &["--json"]].concat());
        serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{words:?}: {error}: {ended:?}"))
    }

    /// Looks at `status` until it is as wished.
    pub(crate) fn wait(&self, what: &str, wished: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..LOOKS {
            last = self.json(&["status"]);
            if wished(&last) {
                return last;
            }
        }
        panic!("waited in vain for {what}: {last:#}\n{}", self.log());
    }

    /// Waits until every event is handled and the comparison at the start is over.
    pub(crate) fn settle(&self) {
        self.wait("an empty queue and a reconcile", |status| {
            let reconciled = |policy: &Value| policy["reconciled_at_ms"].is_i64() && policy["snapshot_at_ms"].is_i64();
            status["queue"]["waiting"] == 0 && status["policies"].as_array().unwrap().iter().all(reconciled)
        });
    }

    /// Standard error of the daemons so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.root.path().join("serve.log")).unwrap_or_default()
    }

    /// Starts the daemon on a free port and waits until it says that it is ready.
    pub(crate) fn serve(&self) -> Serving {
        self.serve_with(&[])
    }

    pub(crate) fn serve_with(&self, words: &[&str]) -> Serving {
        self.start(&[words, &["serve"]].concat())
    }

    /// Starts the daemon by these words, `serve` among them.
    pub(crate) fn start(&self, words: &[&str]) -> Serving {
        self.serving(self.command(&[words, &["--listen", "127.0.0.1:0"]].concat()))
    }

    /// Starts it where no file can grow beyond so many KiB: what a full disk is to a large object, for every user.
    pub(crate) fn serve_with_files_up_to(&self, kib: u32) -> Serving {
        let mut command = Command::new("bash");
        // The limit's signal is ignored, and so the write fails; what is ignored stays so across `exec`.
        command.args(["-c", "trap '' XFSZ; ulimit -f $0; exec \"$@\"", &kib.to_string()]);
        command.arg(env!("CARGO_BIN_EXE_afterimage")).arg("--data-dir").arg(self.data());
        command.current_dir(self.root.path()).args(["serve", "--listen", "127.0.0.1:0"]);
        self.serving(command)
    }

    /// Starts it where nothing can be written to standard error.
    pub(crate) fn serve_untold(&self) -> Serving {
        let full = File::options().write(true).open("/dev/full").unwrap();
        self.serving_to(self.command(&["serve", "--listen", "127.0.0.1:0"]), full)
    }

    fn serving(&self, command: Command) -> Serving {
        let log = File::options().create(true).append(true).open(self.root.path().join("serve.log")).unwrap();
        self.serving_to(command, log)
    }

    fn serving_to(&self, mut command: Command, log: File) -> Serving {
        let mut child = Killed(command.stdout(Stdio::piped()).stderr(log).spawn().unwrap());
        let mut out = BufReader::new(child.0.stdout.take().unwrap());
        let mut printed = String::new();
        while !printed.contains("ready (") {
            let read = out.read_line(&mut printed).unwrap();
            assert!(read > 0, "serve ended: {printed}\n{}", self.log());
        }
        let address = printed.split("http://").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
        let keys: Value = self.json(&["credentials", "show"]);
        let s3 = S3 {
            address: address.parse().unwrap(),
            access_key: keys["access_key_id"].as_str().unwrap().to_owned(),
            secret_key: keys["secret_access_key"].as_str().unwrap().to_owned(),
        };
        Serving { child, _out: out, printed, s3 }
    }
}

impl Serving {
    /// Ends it as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
    }

    /// Asks it to stop, waits, and gives its exit code.
    pub(crate) fn stop(self) -> i32 {
        self.signal("-INT");
        self.ended()
    }

    /// Where its DynamoDB endpoint listens.
    pub(crate) fn tables_address(&self) -> String {
        let address = self.printed.split("DynamoDB at http://").nth(1).and_then(|rest| rest.split_whitespace().next());
        address.unwrap_or_else(|| panic!("no DynamoDB endpoint: {}", self.printed)).to_owned()
    }

    /// Waits for its end, and gives its exit code.
    pub(crate) fn ended(mut self) -> i32 {
        self.child.0.wait().unwrap().code().unwrap_or(-1)
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.child.signal(signal);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Stores text that must be accepted.
    pub(crate) fn put(&self, bucket: &str, key: &str, text: &str) {
        let (status, body) = self.s3.put(bucket, key, text.as_bytes()).unwrap();
        assert_eq!(status, 200, "{key}: {}", String::from_utf8_lossy(&body));
    }

    /// The text of an object that must be there.
    pub(crate) fn text(&self, bucket: &str, key: &str) -> String {
        let (status, body) = self.s3.get(bucket, key).unwrap();
        assert_eq!(status, 200, "{key}");
        String::from_utf8(body).unwrap()
    }
}

impl Running {
    /// Reads standard error up to a line with these words.
    pub(crate) fn until_told(&mut self, words: &str) {
        let err = self.0.0.stderr.as_mut().unwrap();
        let (mut told, mut byte) = (Vec::new(), [0]);
        while !told.windows(words.len()).any(|window| window == words.as_bytes()) {
            err.read_exact(&mut byte).unwrap();
            told.push(byte[0]);
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.0.signal(signal);
    }

    /// Waits for its end. What it prints fits into a pipe.
    pub(crate) fn ended(mut self) -> Ended {
        let (mut out, mut err) = (String::new(), String::new());
        if let Some(mut stdout) = self.0.0.stdout.take() {
            stdout.read_to_string(&mut out).unwrap();
        }
        self.0.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        Ended { code: self.0.0.wait().unwrap().code().unwrap_or(-1), out, err }
    }
}

impl Killed {
    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(signal).arg(self.0.id().to_string()).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill, and waiting again gives the same answer.
        if self.0.kill().is_ok() {
            self.0.wait().unwrap();
        }
    }
}

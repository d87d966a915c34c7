//! An emulator of AWS in a process of its own, on loopback, for one test; it ends with the test.
//!
//! `cargo xtask ci aws` installs it and says by `AFTERIMAGE_EMULATOR` where it is; tests that need it are ignored otherwise.

use aws::{SdkConfig, Service};
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;

/// Ports that are tried: between being found free and being taken, another process may take one.
const PORTS_TRIED: usize = 5;
/// Lines that it may print before it is ready.
const LINES_BEFORE_READY: usize = 200;
/// The region of everything in it.
const REGION: &str = "us-east-1";

/// One emulator.
pub(crate) struct Emulator {
    process: Child,
    url: String,
}

impl Emulator {
    /// Starts one and waits until it answers.
    pub(crate) fn start() -> Emulator {
        (0..PORTS_TRIED).find_map(|_| Emulator::try_start()).expect("the emulator starts on a free port")
    }

    #[expect(clippy::disallowed_methods, reason = "where the emulator is installed is known to who runs the tests")]
    fn try_start() -> Option<Emulator> {
        let program = std::env::var_os("AFTERIMAGE_EMULATOR")
            .expect("AFTERIMAGE_EMULATOR names the emulator: run `cargo xtask ci aws`, which installs it");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let mut process = Command::new(program)
            // Else it listens on every address.
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("MINISTACK_REGION", REGION)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the emulator is installed");
        let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let emulator = Emulator { process, url: format!("http://127.0.0.1:{port}") };
        let ready = lines.by_ref().take(LINES_BEFORE_READY).any(|line| line.contains("Running on"));
        // It must never wait for a reader.
        thread::spawn(move || lines.for_each(drop));
        ready.then_some(emulator)
    }

    /// Its address.
    #[allow(dead_code, reason = "not every test asks for it")]
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The service that it is.
    #[allow(dead_code, reason = "not every test asks for it")]
    pub(crate) fn service(&self) -> Service {
        Service {
            endpoint: Some(self.url.clone()),
            region: Some(REGION.to_owned()),
            path_style: true,
            ..Service::default()
        }
    }

    /// What clients of it share. It takes every credential.
    pub(crate) fn config(&self) -> SdkConfig {
        let keys = Credentials::new("test", "test", None, None, "test");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(REGION))
            .endpoint_url(&self.url)
            .credentials_provider(SharedCredentialsProvider::new(keys))
            .build()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Already gone is as good. Not SIGTERM: it may take its time.
        let killed = self.process.kill().and_then(|()| self.process.wait());
        if let Err(error) = killed {
            eprintln!("the emulator did not end: {error}");
        }
    }
}

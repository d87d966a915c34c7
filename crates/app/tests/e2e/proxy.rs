//! A proxy before a service, which gives some requests the faults that networks and services have: asked to slow down, cut
//! before they arrive, done and not answered, answered by half, and a copy answered with 200 and an error inside. Which
//! one comes next follows from a seed; it is printed by a test that fails.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Of so many requests about one has each of the faults.
const ONE_IN: u64 = 40;
/// The connection that ends the proxy.
const STOP: &[u8] = b"STOP";

/// A proxy on loopback, until it is dropped.
pub(crate) struct Proxy {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    state: AtomicU64,
    stormy: AtomicBool,
    away: AtomicBool,
    faults: AtomicU64,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passed,
    SlowedDown,
    NeverArrived,
    NeverAnswered,
    AnsweredByHalf,
    ErrorInside,
}

impl Proxy {
    /// Before the service at `url`. Calm at first.
    pub(crate) fn before(url: &str, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            upstream: url.trim_start_matches("http://").to_owned(),
            state: AtomicU64::new(seed),
            stormy: AtomicBool::new(false),
            away: AtomicBool::new(false),
            faults: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let mut first = [0; STOP.len()];
                if client.peek(&mut first).is_ok_and(|n| first[..n] == *STOP) {
                    return;
                }
                let shared = Arc::clone(&serving);
                // A client that is killed in the middle is what the tests are about.
                thread::spawn(move || shared.serve(client).map_err(|error| eprintln!("the proxy: {error}")));
            }
        });
        Proxy { url: own, shared }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Lets the faults begin, or end.
    pub(crate) fn storm(&self, on: bool) {
        self.shared.stormy.store(on, Ordering::SeqCst);
    }

    /// Lets the service be out of reach, or back.
    pub(crate) fn away(&self, away: bool) {
        self.shared.away.store(away, Ordering::SeqCst);
    }

    /// How many requests had a fault.
    pub(crate) fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let stopped =
            TcpStream::connect(self.url.trim_start_matches("http://")).and_then(|mut end| end.write_all(STOP));
        if let Err(error) = stopped {
            eprintln!("the proxy did not end: {error}");
        }
    }
}

/// A request as it came.
pub(crate) struct Request {
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn read(from: &TcpStream) -> io::Result<Option<Request>> {
        let mut reader = BufReader::new(from);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(None);
            }
        }
        let request = Request { head, body: Vec::new() };
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        if request.header("expect").is_some() {
            (&mut &*from).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Some(Request { body, ..request }))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// As it is sent on: for one answer, after which the connection ends.
    fn onwards(&self) -> String {
        let keep = |line: &&str| !["connection:", "expect:"].iter().any(|no| line.to_ascii_lowercase().starts_with(no));
        let lines: Vec<&str> = self.head.trim_end().lines().filter(keep).collect();
        format!("{}\r\nConnection: close\r\n\r\n", lines.join("\r\n"))
    }

    /// What the service there (host and port) answers to it, whole.
    pub(crate) fn pass_on(&self, to: &str) -> io::Result<Vec<u8>> {
        let mut service = TcpStream::connect(to)?;
        service.write_all(self.onwards().as_bytes())?;
        service.write_all(&self.body)?;
        let mut answer = Vec::new();
        service.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

impl Shared {
    /// One request; its answer ends the connection.
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let Some(request) = Request::read(&client)? else { return Ok(()) };
        let fate = self.fate(&request);
        match fate {
            Fate::SlowedDown => return client.write_all(slow_down(&request).as_bytes()),
            Fate::NeverArrived => return client.shutdown(Shutdown::Both),
            Fate::ErrorInside => return client.write_all(answer("200 OK", &failure("InternalError")).as_bytes()),
            Fate::Passed | Fate::NeverAnswered | Fate::AnsweredByHalf => {}
        }
        let answer = request.pass_on(&self.upstream)?;
        match fate {
            Fate::NeverAnswered => {}
            Fate::AnsweredByHalf => client.write_all(&answer[..answer.len() / 2])?,
            _ => client.write_all(&answer)?,
        }
        client.shutdown(Shutdown::Both)
    }

    fn fate(&self, request: &Request) -> Fate {
        if self.away.load(Ordering::SeqCst) {
            self.faults.fetch_add(1, Ordering::SeqCst);
            return Fate::NeverArrived;
        }
        if !self.stormy.load(Ordering::SeqCst) {
            return Fate::Passed;
        }
        let fate = match self.random() % ONE_IN {
            0 => Fate::SlowedDown,
            1 => Fate::NeverArrived,
            2 => Fate::NeverAnswered,
            3 => Fate::AnsweredByHalf,
            4..=6 if request.header("x-amz-copy-source").is_some() => Fate::ErrorInside,
            _ => return Fate::Passed,
        };
        self.faults.fetch_add(1, Ordering::SeqCst);
        fate
    }

    /// The next number (splitmix64).
    fn random(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        let z = self.state.fetch_add(step, Ordering::SeqCst).wrapping_add(step);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn slow_down(request: &Request) -> String {
    match request.header("x-amz-target").is_some() {
        true => answer("400 Bad Request", r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#),
        false => answer("503 Slow Down", &failure("SlowDown")),
    }
}

fn failure(code: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>a fault</Message></Error>")
}

/// A whole answer, after which the connection ends.
pub(crate) fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

//! Processes that a benchmark starts: what the kernel counts of them, and workers that begin on a word.
//!
//! A worker gets ready (clients, connections, imports), says so, and waits: what is measured is its work, not its start. It
//! stays until its standard input ends, so that the kernel's counts of it can be read when it is done. Linux only.

use crate::latency::now;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Ticks of the kernel's clock for CPU time (`getconf CLK_TCK`): the same on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of a process so far, user and system, with those of children that it waited for (a client may be a script
/// around the program). A zombie's can be read, too.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which stands in brackets: user and system time are the 12th and 13th, those of children the 14th and
    // 15th.
    let fields: Vec<&str> = stat.rsplit(") ").next().context("a name in brackets")?.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).context("a number of ticks");
    Ok((ticks(11)? + ticks(12)? + ticks(13)? + ticks(14)?) / TICKS_PER_SECOND)
}

/// The peak of a process's resident memory so far, in MiB.
pub(crate) fn peak_mib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM in /proc")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib.div_ceil(1024))
}

/// A worker, or a server that ends with its standard input. Killed when dropped.
pub(crate) struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What it said with `ready`: a server's address.
    pub(crate) said: String,
}

impl Worker {
    /// Starts it, and waits until it is ready.
    pub(crate) fn start(mut command: Command) -> Result<Worker> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("standard output is piped")?);
        let mut worker = Worker { child, input, output, said: String::new() };
        let line = worker.line()?;
        let said = line.strip_prefix("ready").with_context(|| format!("{command:?} said {line:?}"))?;
        worker.said = said.trim().to_owned();
        Ok(worker)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let ended = self.output.read_line(&mut line)? == 0;
        ensure!(!ended, "process {} ended before it answered", self.child.id());
        Ok(line)
    }

    fn go(&mut self) -> Result<()> {
        let input = self.input.as_mut().context("standard input is piped")?;
        Ok(input.write_all(b"go\n").and_then(|()| input.flush())?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing of it is left.
        drop(self.input.take());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What workers took together.
#[derive(Clone, Debug)]
pub(crate) struct Took {
    /// From the word to the last answer.
    pub(crate) seconds: f64,
    /// CPU seconds of all workers.
    pub(crate) client_cpu: f64,
    /// CPU seconds of each server meanwhile.
    pub(crate) server_cpu: Vec<f64>,
    /// What each worker answered.
    pub(crate) answers: Vec<Value>,
    /// The highest peak of a worker's resident memory, in MiB.
    pub(crate) peak_mib: u64,
}

impl Took {
    /// The sum of a number in all answers.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.answers.iter().filter_map(|answer| answer[name].as_f64()).sum()
    }
}

/// Starts the workers, lets all of them work at the same time, and waits for their answers.
pub(crate) fn work(commands: Vec<Command>, servers: &[u32]) -> Result<Took> {
    let mut workers = commands.into_iter().map(Worker::start).collect::<Result<Vec<_>>>()?;
    let clients: Vec<u32> = workers.iter().map(Worker::id).collect();
    let cpu = |pids: &[u32]| pids.iter().map(|pid| cpu_seconds(*pid)).collect::<Result<Vec<f64>>>();
    let (clients_before, servers_before) = (cpu(&clients)?, cpu(servers)?);
    let started = now();
    workers.iter_mut().try_for_each(Worker::go)?;
    let lines = workers.iter_mut().map(Worker::line).collect::<Result<Vec<_>>>()?;
    let seconds = started.elapsed().as_secs_f64();
    let since = |after: Vec<f64>, before: &[f64]| after.iter().zip(before).map(|(a, b)| a - b).collect::<Vec<f64>>();
    let server_cpu = since(cpu(servers)?, &servers_before);
    let client_cpu = since(cpu(&clients)?, &clients_before).iter().sum();
    let answers = lines.iter().map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<Vec<Value>>>()?;
    let peaks = clients.iter().map(|pid| peak_mib(*pid)).collect::<Result<Vec<u64>>>()?;
    Ok(Took { seconds, client_cpu, server_cpu, answers, peak_mib: peaks.into_iter().max().unwrap_or(0) })
}

/// What a command took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    /// From its start to its end.
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
}

/// Runs a command to its end; what it took, and what it printed. The kernel's count is read while the process is a zombie.
pub(crate) fn run_to_end(mut command: Command) -> Result<(Ran, String)> {
    let started = now();
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().with_context(|| format!("start {command:?}"))?;
    let mut printed = String::new();
    child.stdout.take().context("standard output is piped")?.read_to_string(&mut printed)?;
    waitid(WaitId::Pid(Pid::from_child(&child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    let ran = Ran { seconds: started.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds(child.id())? };
    let status = child.wait()?;
    ensure!(status.success(), "{command:?} ended with {status}: {printed}");
    Ok((ran, printed))
}

/// In a worker: says that it is ready, and waits for the word.
pub(crate) fn ready() -> Result<()> {
    println!("ready");
    let mut word = String::new();
    ensure!(std::io::stdin().read_line(&mut word)? > 0, "nobody waits for the answer");
    Ok(())
}

/// In a worker: answers, and stays until its counts have been read.
pub(crate) fn answer(answer: &Value) -> Result<()> {
    println!("{answer}");
    stay()
}

/// Waits until standard input ends: whoever started this process has done with it, or is gone.
pub(crate) fn stay() -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

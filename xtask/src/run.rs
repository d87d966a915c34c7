//! Running steps and commands: each timed, the output passed on as it comes, the runner's closing line kept for the
//! summary, and the first failure named with the command that repeats it.

use crate::Step;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a step says for the summary.
pub(crate) struct Outcome {
    /// The runner's closing line, a count, or why the step was skipped.
    pub(crate) note: String,
}

impl Outcome {
    pub(crate) fn note(note: impl Into<String>) -> Outcome {
        Outcome { note: note.into() }
    }
}

/// The project's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the project").to_owned()
}

/// Where builds and virtual environments go.
#[expect(clippy::disallowed_methods, reason = "cargo's own setting, which it passes on to the commands run here")]
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

#[expect(clippy::disallowed_methods, reason = "cargo's own setting, which is the caller's if it is there")]
fn incremental_is_not_asked_for() -> bool {
    std::env::var_os("CARGO_INCREMENTAL").is_none()
}

/// Runs the steps in order and prints what each took; stops at the first that fails.
#[expect(clippy::disallowed_methods, reason = "a tool of the project tells how long its steps took")]
pub(crate) fn run_steps(steps: &[&Step]) -> Result<()> {
    let begun = Instant::now();
    let mut lines: Vec<String> = Vec::new();
    for step in steps {
        eprintln!("\n=== {}: {}", step.name, step.what);
        let step_begun = Instant::now();
        let outcome = (step.run)();
        let took = seconds(step_begun.elapsed());
        match outcome {
            Ok(outcome) => lines.push(format!("  ok    {:16} {took:>8}  {}", step.name, outcome.note)),
            Err(error) => {
                lines.push(format!("  FAIL  {:16} {took:>8}  {}", step.name, step.what));
                eprintln!("\n{}", lines.join("\n"));
                bail!("{}: {error:#}\nrepeat it with: cargo xtask ci {}", step.name, step.name);
            }
        }
    }
    eprintln!("\n{}\n  all green in {}", lines.join("\n"), seconds(begun.elapsed()));
    Ok(())
}

fn seconds(span: Duration) -> String {
    format!("{:.1}s", span.as_secs_f64())
}

/// One command, as it would be typed, without quoting.
pub(crate) struct Sh {
    words: Vec<String>,
    env: Vec<(&'static str, String)>,
}

impl Sh {
    /// Splits at spaces; add words with spaces by [`Sh::arg`].
    pub(crate) fn new(line: &str) -> Sh {
        Sh { words: line.split(' ').map(str::to_owned).collect(), env: Vec::new() }
    }

    /// A program by its path.
    pub(crate) fn of(program: &Path) -> Sh {
        Sh { words: vec![program.to_string_lossy().into_owned()], env: Vec::new() }
    }

    /// More words, split at spaces.
    pub(crate) fn words(mut self, words: &str) -> Sh {
        self.words.extend(words.split(' ').map(str::to_owned));
        self
    }

    /// One more word, which may hold spaces.
    pub(crate) fn arg(mut self, word: impl AsRef<Path>) -> Sh {
        self.words.push(word.as_ref().to_string_lossy().into_owned());
        self
    }

    /// A variable of its environment.
    pub(crate) fn env(mut self, name: &'static str, value: impl AsRef<Path>) -> Sh {
        self.env.push((name, value.as_ref().to_string_lossy().into_owned()));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).current_dir(root()).stdin(Stdio::null());
        // What incremental builds keep is read by the next edit, and takes as much room again: nobody edits here.
        if incremental_is_not_asked_for() {
            command.env("CARGO_INCREMENTAL", "0");
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// As it would be typed.
    fn line(&self) -> String {
        let env = self.env.iter().map(|(name, value)| format!("{name}='{value}' "));
        env.collect::<String>() + &self.words.join(" ")
    }

    /// Whether it runs and succeeds; what it prints is dropped.
    pub(crate) fn works(&self) -> bool {
        let status = self.command().stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    /// What it prints to its standard output.
    pub(crate) fn read(&self) -> Result<String> {
        let output =
            self.command().stderr(Stdio::inherit()).output().with_context(|| format!("run `{}`", self.line()))?;
        if !output.status.success() {
            bail!("`{}` failed: {}", self.line(), output.status);
        }
        String::from_utf8(output.stdout).context("read its output as UTF-8")
    }

    /// Runs it and passes its output on; the note is the last line that counts what passed.
    pub(crate) fn run(&self) -> Result<Outcome> {
        eprintln!("$ {}", self.line());
        let spawned = self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.with_context(|| format!("run `{}`: is it installed?", self.words[0]))?;
        let out = child.stdout.take().context("its standard output")?;
        let err = child.stderr.take().context("its standard error")?;
        let (counted, noise) = thread::scope(|scope| {
            let out = scope.spawn(|| pass_on(out, std::io::stdout()));
            let err = scope.spawn(|| pass_on(err, std::io::stderr()));
            (out.join(), err.join())
        });
        let status = child.wait().with_context(|| format!("wait for `{}`", self.line()))?;
        let lines = [counted, noise].into_iter().flatten().collect::<Result<Vec<_>>>()?;
        if !status.success() {
            bail!("`{}` failed: {status}", self.line());
        }
        Ok(Outcome::note(lines.into_iter().flatten().next_back().unwrap_or_default()))
    }
}

/// Copies lines as they come, and returns the last one that says how many passed.
fn pass_on(from: impl Read, mut to: impl Write) -> Result<Option<String>> {
    let mut counted = None;
    for line in BufReader::new(from).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(to, "{line}")?;
        if line.contains(" passed") {
            counted = Some(line.trim().trim_matches('=').trim().to_owned());
        }
    }
    Ok(counted)
}

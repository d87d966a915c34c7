//! Commands by transcript: `tests/transcripts/*.txt` hold `$ command` lines with the expected output beside them, the
//! volatile parts replaced by words. With `UPDATE=1` in the environment the files are written anew, to be looked at.
//!
//! Besides `afterimage …` a transcript may say `serve`, `serve calmly` (nothing is purged by time), `stop`, `settle`, `put BUCKET KEY TEXT`, `rm BUCKET KEY`,
//! `get BUCKET KEY` and `mb BUCKET`.

use crate::process::{Folder, Serving};
use std::fs;
use std::path::Path;

/// The names of the configuration for trying out, with times that no slow machine reaches.
const CALM: &str = r#"
[[policy]]
name = "source"
source = "local://source"
destination = "local://copies"
keep = 3
grace = "1h"
clean = "cron(0 0 1 1 ? 2099)"
"#;

#[test]
fn commands_print_what_the_transcripts_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut wrong = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        let expected = fs::read_to_string(&file).unwrap();
        let actual = play(&expected);
        #[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the tests")]
        let update = std::env::var_os("UPDATE").is_some();
        if update {
            fs::write(&file, &actual).unwrap();
        } else if actual != expected {
            wrong.push(format!("{} says otherwise now:\n{actual}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn play(script: &str) -> String {
    let folder = Folder::new();
    let mut serving: Option<Serving> = None;
    let mut played = String::new();
    for line in script.lines().filter(|line| line.starts_with("$ ") || line.starts_with("# ")) {
        if !played.is_empty() {
            played.push('\n');
        }
        played.push_str(line);
        played.push('\n');
        let Some(command) = line.strip_prefix("$ ") else { continue };
        let output = act(&folder, &mut serving, command);
        for line in output.lines() {
            let line = stable(line, &folder, serving.as_ref());
            if !line.is_empty() {
                played.push_str(&line);
                played.push('\n');
            }
        }
    }
    played
}

fn act(folder: &Folder, serving: &mut Option<Serving>, command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    let served = || serving.as_ref().expect("the transcript says `serve` first");
    match words[..] {
        ["afterimage", ref words @ ..] => {
            let ended = folder.run(words);
            let code = if ended.code == 0 { String::new() } else { format!("exit code {}\n", ended.code) };
            format!("{}{}{code}", ended.out, ended.err)
        }
        ["serve"] => {
            let started = folder.serve();
            let printed = started.printed.clone();
            *serving = Some(started);
            printed
        }
        ["serve", "calmly"] => {
            fs::write(folder.root().join("calm.toml"), CALM).unwrap();
            *serving = Some(folder.serve_with(&["--config", "calm.toml"]));
            String::new()
        }
        ["stop"] => format!("exit code {}", serving.take().expect("it runs").stop()),
        ["settle"] => {
            folder.settle();
            String::new()
        }
        ["put", bucket, key, ref text @ ..] => {
            served().put(bucket, key, &text.join(" "));
            String::new()
        }
        ["get", bucket, key] => {
            let (status, body) = served().s3.get(bucket, key).unwrap();
            if status == 200 { String::from_utf8(body).unwrap() } else { format!("{status}") }
        }
        ["rm", bucket, key] => format!("{}", served().s3.delete(bucket, key).unwrap().0),
        ["mb", bucket] => format!("{}", served().s3.make_bucket(bucket).unwrap().0),
        _ => panic!("no transcript command: {command}"),
    }
}

/// Replaces what differs from run to run: addresses, keys, processes, moments, spans, widths of columns.
fn stable(line: &str, folder: &Folder, serving: Option<&Serving>) -> String {
    let data = folder.data().canonicalize().unwrap_or(folder.data());
    let mut line =
        line.replace(&data.display().to_string(), "DATA").replace(env!("CARGO_BIN_EXE_afterimage"), "afterimage");
    line = line.replace(&format!("--data-dir {}", folder.data().display()), "--data-dir DATA");
    if let Some(serving) = serving {
        line = line
            .replace(&serving.s3.address.to_string(), "ADDRESS")
            .replace(&serving.tables_address(), "TABLES")
            .replace(&serving.s3.access_key, "ACCESS_KEY")
            .replace(&serving.s3.secret_key, "SECRET_KEY")
            .replace(&format!("process {}", serving.pid()), "process PID");
    }
    let mut words: Vec<String> = Vec::new();
    let configured =
        |before: Option<&String>| before.is_some_and(|word| ["grace", "for", "after"].contains(&word.as_str()));
    for word in line.split_whitespace() {
        let plain = word.trim_matches(|c: char| ",;:()".contains(c));
        let word = match plain {
            plain if is_moment(plain) => word.replace(plain, "TIME"),
            plain if is_copy(plain) => word.replace(plain, &format!("{}.COPY", plain.split(".20").next().unwrap())),
            plain if is_span(plain) && !configured(words.last()) => {
                // Two units are one span, and `in SPAN`, `SPAN ago` and `now` are all moments.
                let word = word.replace(plain, "SPAN");
                if words.last().is_some_and(|before| before == "SPAN") {
                    words.pop();
                }
                match words.last().map(String::as_str) {
                    Some("in" | "WHEN") => {
                        words.pop();
                        word.replace("SPAN", "WHEN")
                    }
                    _ => word,
                }
            }
            "ago" if words.last().is_some_and(|before| before == "SPAN") => {
                words.pop();
                word.replace("ago", "WHEN")
            }
            "now" => word.replace("now", "WHEN"),
            "never" => word.replace("never", "WHEN"),
            plain if plain.len() == 64 && plain.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                word.replace(plain, "HASH")
            }
            _ => word.to_owned(),
        };
        words.push(word);
    }
    words.join(" ").replace(&crate_user(), "USER")
}

fn is_moment(word: &str) -> bool {
    word.len() == 24 && word.starts_with("20") && word.ends_with('Z') && word.as_bytes()[10] == b'T'
}

fn is_copy(word: &str) -> bool {
    word.split(".20").nth(1).is_some_and(|rest| rest.len() > 30 && rest.contains("Z-s"))
}

fn is_span(word: &str) -> bool {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    digits > 0 && ["ms", "s", "m", "h", "d"].contains(&&word[digits..])
}

/// The user whose name the journal carries.
fn crate_user() -> String {
    let output = std::process::Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

"""The README's first session, line by line, as a reader would paste it."""

import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ["AFTERIMAGE_BIN"]


def first_session():
    """The lines of the first block that runs more than the two commands."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    session = next(block for block in blocks if block.startswith("alias af="))
    return [line.split("  #")[0].rstrip() for line in session.strip().splitlines()]


@pytest.fixture
def serving(tmp_path):
    """`serve` without a configuration on a free port; gives the environment that its `export` lines set."""
    log = tmp_path / "serve.log"
    command = [BINARY, "serve", "--listen", "127.0.0.1:0"]
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield environment(log, process)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, log.read_text(encoding="utf-8")


def environment(log, process):
    for _ in range(600):
        text = log.read_text(encoding="utf-8")
        found = dict(re.findall(r"(AWS_[A-Z_]+)=(\S+)", text))
        if "ready (" in text:
            clients = os.environ.get("AFTERIMAGE_CLIENTS", "")
            return {**os.environ, **found, "PATH": f"{clients}:{os.environ['PATH']}"}
        assert process.poll() is None, text
        time.sleep(0.05)  # the real process, really starting
    raise AssertionError(f"serve printed no exports:\n{log.read_text(encoding='utf-8')}")


def test_the_first_session_of_the_readme_works_as_written(serving, tmp_path):
    lines = first_session()
    aliases = [line.replace("target/release/afterimage", BINARY) for line in lines if line.startswith("alias ")]
    printed = []
    for line in (line for line in lines if not line.startswith("alias ")):
        script = "\n".join(["shopt -s expand_aliases", *aliases, line])
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=serving, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        printed.append(done.stdout)
        settled(serving, tmp_path)
    overwritten, deleted = printed[1], printed[3]
    assert "3 active copies, 0 disowned" in overwritten, overwritten
    assert "0 active copies, 3 disowned" in deleted, deleted
    assert printed[-1] == "draft 4\n"


def settled(env, folder):
    """Waits until no event waits: a reader is slower than this test."""
    for _ in range(200):
        status = subprocess.run([BINARY, "status", "--json"], cwd=folder, env=env, capture_output=True, text=True, check=True)
        if re.search(r'"waiting":\s*0\b', status.stdout):
            return
        time.sleep(0.05)
    raise AssertionError(status.stdout)

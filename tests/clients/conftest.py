"""A running endpoint for the tests of stock clients.

AFTERIMAGE_BIN is the binary `afterimage`, or the example `endpoint`; AFTERIMAGE_CLIENTS the folder of the client programs.
"""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import time
import uuid
from pathlib import Path

import boto3
import botocore.config
import pytest

START_SECONDS = 60
# How often a condition is looked at before the test gives up; each look is a command, some 20 ms.
LOOKS = 3_000

# Keys that every client is given. S3 allows any UTF-8; each client has a few that it cannot say, noted in its test.
ODD_KEYS = [
    "plain",
    "folder/plain",
    "folder/plain/deeper",
    "a space",
    " lead and trail ",
    "plus+plus",
    "percent%41",
    "100%",
    "é",
    "e\u0301",
    "日本語/ファイル",
    "🦀",
    "quote'\"",
    "amp&lt<gt>",
    "question?x=y#z",
    "semi;colon:comma,",
    "tilde~star*",
    "[brackets]{braces}",
    "back\\slash",
    "dots.../..x",
    "n" * 200 + "/" + "m" * 200,
]


class Endpoint:
    """What a client needs."""

    def __init__(self, process, exports, folder):
        self.process = process
        self.folder = folder
        self.url = exports["AWS_ENDPOINT_URL"]
        self.access_key = exports["AWS_ACCESS_KEY_ID"]
        self.secret_key = exports["AWS_SECRET_ACCESS_KEY"]
        self.env = {**os.environ, **exports, "AWS_EC2_METADATA_DISABLED": "true"}
        self.env["AWS_CONFIG_FILE"] = self.env["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull

    def client(self, access_key=None, secret_key=None, **config):
        """A boto3 client that tries each call once."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=access_key or self.access_key,
            aws_secret_access_key=secret_key or self.secret_key,
            region_name="us-east-1",
            config=botocore.config.Config(retries={"total_max_attempts": 1}, **config),
        )

    def afterimage(self, *words):
        """What one of our own commands answers."""
        line = [os.environ["AFTERIMAGE_BIN"], "--data-dir", str(self.folder / "data"), *words, "--json"]
        done = subprocess.run(line, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def settled(self):
        """Waits until no event waits; each look is a command."""
        for _ in range(LOOKS):
            if self.afterimage("status")["queue"]["waiting"] == 0:
                return
        raise AssertionError("events wait for ever")

    def run(self, program, *arguments, ok=True, stdin=None):
        """Runs a client program; its output."""
        tool = Path(os.environ.get("AFTERIMAGE_CLIENTS", "")) / program
        done = subprocess.run(
            [str(tool), *arguments],
            env=self.env,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
        )
        said = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
        assert (done.returncode == 0) == ok, said
        return said


def rclone(endpoint, *arguments, ok=True):
    """Runs rclone; `remote:` in its arguments is the endpoint."""
    remote = f":s3,provider=Other,env_auth=true,region=us-east-1,endpoint='{endpoint.url}'"
    arguments = [argument.replace("remote:", f"{remote}:") for argument in arguments]
    plain = ("--config", "/dev/null", "--retries", "1", "--low-level-retries", "1", "--no-unicode-normalization")
    return endpoint.run("rclone", *plain, *arguments, ok=ok)


def command(folder, *arguments):
    binary = Path(os.environ["AFTERIMAGE_BIN"])
    if binary.name == "endpoint":
        return [str(binary), str(folder)]
    return [str(binary), "--data-dir", str(folder), *arguments, "serve", "--listen", "127.0.0.1:0"]


def exports_in(text):
    """What the lines `export NAME=VALUE …` set."""
    lines = [line for line in text.splitlines() if line.strip().startswith("export ")]
    return dict(pair for line in lines for pair in re.findall(r"((?:AWS|S3)_\w+)=(\S+)", line))


def read_until(process, wanted, log):
    """Reads what the process prints until it has printed what is wanted."""
    text, deadline = b"", time.monotonic() + START_SECONDS
    while wanted not in text:
        ready, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
        piece = os.read(process.stdout.fileno(), 65536) if ready else b""
        assert piece, f"the binary did not start:\n{text.decode()}\n{log.read_text()}"
        text += piece
    return text.decode()


@contextlib.contextmanager
def serving(folder, *arguments):
    """The daemon on a folder of its own and a free port, stopped as Ctrl-C does."""
    log = folder / "stderr.txt"
    data = folder / "data"
    with log.open("wb") as errors:
        process = subprocess.Popen(command(data, *arguments), cwd=folder, stdout=subprocess.PIPE, stderr=errors)
    try:
        if Path(os.environ["AFTERIMAGE_BIN"]).name == "endpoint":
            exports = exports_in(read_until(process, b"S3_ENDPOINT_URL=", log))
        else:
            read_until(process, b"ready (", log)
            show = [os.environ["AFTERIMAGE_BIN"], "--data-dir", str(data), "credentials", "show"]
            exports = exports_in(subprocess.run(show, capture_output=True, text=True, check=True).stdout)
        yield Endpoint(process, exports, folder)
        assert process.poll() is None, f"the binary ended:\n{log.read_text()}"
        process.send_signal(signal.SIGINT)
        assert process.wait(START_SECONDS) == 0, log.read_text()
        # What clients do wrong is told to them; an error in the log is for a person to act on.
        assert "ERROR" not in log.read_text(), log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory):
    """One endpoint for all tests that need no other."""
    with serving(tmp_path_factory.mktemp("afterimage")) as endpoint:
        yield endpoint


@pytest.fixture
def s3(endpoint):
    """A boto3 client."""
    return endpoint.client()


@pytest.fixture
def bucket(s3):
    """A bucket of one's own. It is left behind: its events may not be handled yet."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name

"""A running endpoint for the tests of stock clients.

AFTERIMAGE_BIN is the binary `afterimage`, or the example `endpoint`; AFTERIMAGE_CLIENTS the folder of the client programs.
"""

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
        self.env["S3_ENDPOINT_URL"] = self.url  # s5cmd's own name for it
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


def command(folder):
    binary = Path(os.environ["AFTERIMAGE_BIN"])
    if binary.name == "endpoint":
        return [str(binary), str(folder)]
    return [str(binary), "--data-dir", str(folder), "serve", "--listen", "127.0.0.1:0"]


def read_exports(process, log):
    """Reads the lines `export NAME=VALUE …` up to the endpoint's address; what was printed is in the log."""
    exports, text, deadline = {}, b"", time.monotonic() + START_SECONDS
    while "AWS_ENDPOINT_URL" not in exports:
        ready, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
        piece = os.read(process.stdout.fileno(), 65536) if ready else b""
        assert piece, f"the binary did not start:\n{text.decode()}\n{log.read_text()}"
        text += piece
        # Only whole lines: the last may still be on its way.
        for line in text.decode(errors="replace").split("\n")[:-1]:
            if line.strip().startswith("export "):
                exports.update(re.findall(r"(AWS_\w+)=(\S+)", line))
    return exports


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory):
    """One endpoint for all tests."""
    folder = tmp_path_factory.mktemp("afterimage")
    log = folder / "stderr.txt"
    with log.open("wb") as errors:
        process = subprocess.Popen(command(folder / "data"), cwd=folder, stdout=subprocess.PIPE, stderr=errors)
    try:
        yield Endpoint(process, read_exports(process, log), folder)
        assert process.poll() is None, f"the binary ended:\n{log.read_text()}"
        process.send_signal(signal.SIGINT)
        assert process.wait(START_SECONDS) == 0, log.read_text()
        # What clients do wrong is told to them; an error in the log is for a person to act on.
        assert "ERROR" not in log.read_text(), log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


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

"""This machine's own tables with stock clients: the lines that `serve` prints and the README's, pasted as they are, and
requests that are not signed as they must be."""

import datetime
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import subprocess
import time
import urllib.parse

import boto3
import botocore.exceptions
import pytest
from test_readme import BINARY, serving as fresh  # noqa: F401 (a fixture)

ROOT = pathlib.Path(__file__).resolve().parents[2]
ID = "USER#1"


def paste(lines, env, folder):
    """Runs lines as a reader pastes them; what the last one printed."""
    script = "\n".join(["set -e", f'af() {{ "{BINARY}" "$@"; }}', *lines])
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def until_archived(line, env, folder):
    """A reader is slower than this test: the record is archived a moment after it was deleted."""
    for _ in range(300):
        done = subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
        if done.returncode == 0:
            return done.stdout
        time.sleep(0.05)
    raise AssertionError(f"{line}\n{done.stdout}{done.stderr}")


def test_the_lines_that_serve_prints_archive_a_record(fresh, tmp_path):  # noqa: F811
    printed = (tmp_path / "serve.log").read_text(encoding="utf-8")
    lines = [line.strip() for line in printed.splitlines() if line.startswith("  aws dynamodb ")]
    get = next(line.strip() for line in printed.splitlines() if " archive get " in line)
    assert [line.split()[2] for line in lines] == ["create-table", "put-item", "delete-item"], printed
    assert paste(lines, fresh, tmp_path).strip() == '"CREATING"'
    shown = until_archived(get, fresh, tmp_path)
    assert ID in shown and "by user" in shown and "12.5" in shown, shown
    listed = paste(["aws s3 ls --recursive s3://records/Orders/"], fresh, tmp_path)
    assert re.search(r" Orders/\d{4}/\d\d/\d\d/USER#1\.json$", listed, re.MULTILINE), listed


def test_the_lines_of_the_readme_archive_a_record(fresh, tmp_path):  # noqa: F811
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    block = next(block for block in blocks if block.startswith("aws dynamodb create-table"))
    lines = [line.split("  #")[0].rstrip() for line in block.strip().splitlines()]
    assert [line.split()[:2] for line in lines[-2:]] == [["af", "archive"], ["af", "archive"]], lines
    paste(lines[:-2], fresh, tmp_path)
    shown = until_archived(f"{BINARY} {lines[-2].removeprefix('af ')}", fresh, tmp_path)
    assert "by user" in shown and "12.5" in shown, shown
    paste(lines[-1:], fresh, tmp_path)
    back = paste([f"aws dynamodb get-item --table-name Orders --key '{{\"id\": {{\"S\": \"{ID}\"}}}}'"], fresh, tmp_path)
    assert json.loads(back)["Item"]["total"] == {"N": "12.5"}, back


@pytest.fixture
def dynamodb(endpoint):
    """What boto3 needs for the endpoint."""
    return boto3.client(
        "dynamodb",
        endpoint_url=endpoint.env["AWS_ENDPOINT_URL_DYNAMODB"],
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
        region_name="eu-central-1",
    )


def test_every_type_of_value_goes_in_and_out(dynamodb):
    key = {"id": {"S": "é🦀"}, "at": {"N": "1"}}
    item = {
        **key,
        "many": {"N": "1234567890123456789012345678901234567.8"},
        "blob": {"B": b"\x00\xff"},
        "set": {"NS": ["1", "2.5"]},
        "blobs": {"BS": [b"\x00"]},
        "deep": {"M": {"list": {"L": [{"NULL": True}, {"BOOL": False}, {"S": ""}]}}},
    }
    dynamodb.create_table(
        TableName="Types",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "id", "AttributeType": "S"},
            {"AttributeName": "at", "AttributeType": "N"},
        ],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}],
    )
    dynamodb.put_item(TableName="Types", Item=item)
    assert dynamodb.get_item(TableName="Types", Key=key)["Item"] == item
    stream = dynamodb.describe_table(TableName="Types")["Table"]["StreamSpecification"]
    assert stream == {"StreamEnabled": True, "StreamViewType": "OLD_IMAGE"}
    names = [page["TableNames"] for page in dynamodb.get_paginator("list_tables").paginate()]
    assert names == [["Types"]]
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        dynamodb.put_item(TableName="Types", Item=item, ConditionExpression="attribute_not_exists(id)")
    assert refused.value.response["Error"]["Code"] == "ConditionalCheckFailedException"
    dynamodb.delete_table(TableName="Types")
    with pytest.raises(dynamodb.exceptions.ResourceNotFoundException):
        dynamodb.describe_table(TableName="Types")


class Request:
    """A request as somebody writes it who wants to get in."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.at = datetime.datetime.now(datetime.timezone.utc)
        self.service = "dynamodb"
        self.body = b"{}"
        self.headers = {"x-amz-target": "DynamoDB_20120810.ListTables", "content-type": "application/x-amz-json-1.0"}
        self.unsigned = {}
        self.sent_body = None

    def send(self):
        host = urllib.parse.urlparse(self.endpoint.env["AWS_ENDPOINT_URL_DYNAMODB"]).netloc
        stamp = self.at.strftime("%Y%m%dT%H%M%SZ")
        signed = {**self.headers, "host": host, "x-amz-date": stamp}
        names = ";".join(sorted(signed))
        scope = f"{stamp[:8]}/us-east-1/{self.service}/aws4_request"
        lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
        canonical = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(self.body).hexdigest()}"
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self.endpoint.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        credential = f"{self.endpoint.access_key}/{scope}"
        authorization = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
        connection = http.client.HTTPConnection(host, timeout=60)
        headers = {**signed, **self.unsigned, "authorization": authorization}
        connection.request("POST", "/", self.sent_body or self.body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_a_request_that_is_right_but_for_one_thing_is_refused(endpoint):
    assert Request(endpoint).send()[0] == 200

    def changed(change, status, why):
        request = Request(endpoint)
        change(request)
        said = request.send()
        assert said[0] == status and why in said[1], said

    minutes = datetime.timedelta(minutes=1)
    now = datetime.datetime.now(datetime.timezone.utc)
    changed(lambda it: setattr(it, "at", now - 16 * minutes), 400, "15m may lie between")
    changed(lambda it: setattr(it, "at", now + 16 * minutes), 400, "15m may lie between")
    changed(lambda it: setattr(it, "service", "s3"), 400, "scope is `s3`")
    changed(lambda it: setattr(it, "sent_body", b'{"Limit":1}'), 400, "does not match")
    changed(lambda it: it.unsigned.update({"x-amz-user": "me"}), 400, "`x-amz-user` must be signed")
    changed(lambda it: it.unsigned.update({"origin": "http://localhost"}), 403, "web pages")
    changed(lambda it: it.headers.update({"origin": "null"}), 403, "web pages")
    changed(lambda it: it.headers.update({"x-amz-security-token": "t"}), 400, "no session tokens")
    changed(lambda it: it.unsigned.update({"content-length": str(16 * 1024 * 1024 + 1)}), 413, "at most 16777216")
    changed(lambda it: setattr(it, "service", "streams.dynamodb"), 200, "TableNames")


def test_a_body_of_full_size_is_taken_and_a_larger_one_refused(dynamodb):
    assert "AWS_ENDPOINT_URL" not in os.environ
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        dynamodb.put_item(TableName="Nowhere", Item={"id": {"S": "x" * (16 * 1024 * 1024)}})
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    with pytest.raises(dynamodb.exceptions.ResourceNotFoundException):
        dynamodb.put_item(TableName="Nowhere", Item={"id": {"S": "x" * 300_000}})

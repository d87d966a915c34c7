"""A function of Lambda in Python whose start is measured: the loop of a runtime with the standard library alone, around the
handler of `bench/baseline/handler.py`. Clients are made while it starts, as every guide says.

AWS_LAMBDA_RUNTIME_API names the Runtime API, JOB holds the handler's job.
"""

import json
import os
import urllib.parse
import urllib.request
from datetime import datetime

from handler import Handler

API = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"


def created(handler, event):
    """Handles an S3 notification."""
    for record in event["Records"]:
        stored = record["s3"]["object"]
        key = urllib.parse.unquote_plus(stored["key"])
        time_ms = int(datetime.fromisoformat(record["eventTime"]).timestamp() * 1000)
        handler.created(key, stored["sequencer"], time_ms, stored["eTag"], stored["size"])
    return {}


def main():
    handler = Handler(json.loads(os.environ["JOB"]))
    while True:
        with urllib.request.urlopen(f"{API}/next") as invocation:
            name = invocation.headers["Lambda-Runtime-Aws-Request-Id"]
            event = json.load(invocation)
        answer = json.dumps(created(handler, event)).encode()
        urllib.request.urlopen(f"{API}/{name}/response", data=answer).close()


if __name__ == "__main__":
    main()

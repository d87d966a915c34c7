"""The handlers that the AWS side is compared with: boto3, one call after the other, clients made once and reused.

`drain` does for each created event what a plain function does that keeps the newest copies of an object: copy it on the
condition that it is still the one that the event tells of, put a row, read the rows of its key, and of those that are too many
claim the row, delete the copy, delete the row. `clean` deletes what is due, copy and row, as the index tells. N processes are
N warm functions.

Usage: handler.py drain|clean JOB
JOB is one line of JSON (`bench/src/aws/job.rs`). Says `ready`, waits for a line, works, and prints a line of JSON with the
number of requests; then it stays until its standard input ends, so that what it used can be read.
"""

import json
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

INDEX = "status-disowned_at-index"
# As of `bench/src/rig.rs`.
GRACE_MS = 10_000


class Handler:
    """What a warm function keeps."""

    def __init__(self, job):
        config = Config(s3={"addressing_style": "path"}, retries={"mode": "standard"})
        self.job = job
        self.s3 = boto3.client("s3", endpoint_url=job["s3"], config=config)
        self.dynamodb = boto3.client("dynamodb", endpoint_url=job["dynamodb"], config=config)
        self.requests = 0
        for client in (self.s3, self.dynamodb):
            client.meta.events.register("before-send", self._count)

    def _count(self, **_):
        self.requests += 1

    def created(self, key, sequencer, time_ms, etag, size):
        """One created event."""
        copy_key = f"{key}.{time_ms}-{sequencer}-{etag}"
        try:
            self.s3.copy_object(
                Bucket=self.job["destination"],
                Key=copy_key,
                CopySource={"Bucket": self.job["source"], "Key": key},
                CopySourceIfMatch=f'"{etag}"',
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "PreconditionFailed"):
                return  # it was replaced or deleted meanwhile: another event tells of that
            raise
        row = {
            "original_key": {"S": key},
            "copy_key": {"S": copy_key},
            "status": {"S": "active"},
            "created_at": {"N": str(time_ms)},
            "etag": {"S": etag},
            "size": {"N": str(size)},
        }
        self._unless_refused(
            self.dynamodb.put_item,
            TableName=self.job["table"],
            Item=row,
            ConditionExpression="attribute_not_exists(copy_key)",
        )
        self.prune(key)

    def prune(self, key):
        """Deletes the copies of a key that are too many."""
        rows = self.dynamodb.query(
            TableName=self.job["table"],
            ConsistentRead=True,
            KeyConditionExpression="original_key = :key",
            ExpressionAttributeValues={":key": {"S": key}},
        )["Items"]
        active = [row for row in rows if row["status"]["S"] == "active"]
        active.sort(key=lambda row: int(row["created_at"]["N"]), reverse=True)
        for row in active[self.job["keep"] :]:
            name = {"original_key": row["original_key"], "copy_key": row["copy_key"]}
            claimed = self._unless_refused(
                self.dynamodb.update_item,
                TableName=self.job["table"],
                Key=name,
                UpdateExpression="SET #status = :disowned, disowned_at = :now, reason = :reason",
                ConditionExpression="#status = :active",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues={
                    ":disowned": {"S": "disowned"},
                    ":active": {"S": "active"},
                    ":now": {"N": str(now_ms())},
                    ":reason": {"S": "surplus"},
                },
            )
            if claimed:
                self.purge(name)

    def purge(self, name):
        """Deletes a copy that was disowned, and its row."""
        self.s3.delete_object(Bucket=self.job["destination"], Key=name["copy_key"]["S"])
        self._unless_refused(
            self.dynamodb.delete_item,
            TableName=self.job["table"],
            Key=name,
            ConditionExpression="#status = :disowned",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":disowned": {"S": "disowned"}},
        )

    def clean(self):
        """Deletes every copy whose grace has passed."""
        due = {
            "TableName": self.job["table"],
            "IndexName": INDEX,
            "KeyConditionExpression": "#status = :disowned AND disowned_at <= :until",
            "ExpressionAttributeNames": {"#status": "status"},
            "ExpressionAttributeValues": {":disowned": {"S": "disowned"}, ":until": {"N": str(now_ms() - GRACE_MS)}},
        }
        cleaned = 0
        while True:
            page = self.dynamodb.query(**due)
            for entry in page["Items"]:
                self.purge({name: entry[name] for name in ("original_key", "copy_key")})
                cleaned += 1
            if "LastEvaluatedKey" not in page:
                return cleaned
            due["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    @staticmethod
    def _unless_refused(call, **arguments):
        """Calls; whether the condition held."""
        try:
            call(**arguments)
            return True
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                return False
            raise


def now_ms():
    return int(time.time() * 1000)


def drain(handler):
    """This worker's share of the events."""
    job = handler.job
    events = range(job["worker"], job["items"], job["workers"])
    for n in events:
        key, sequencer = f"key-{n % job['keys']:05}", f"{n + 1:016x}"
        handler.created(key, sequencer, job["from_ms"] + n, job["etag"], job["size"])
    return len(events)


def main(work, job):
    handler = Handler(job)
    # A warm function has its connections.
    handler.s3.head_bucket(Bucket=job["destination"])
    handler.dynamodb.describe_table(TableName=job["table"])
    handler.requests = 0
    print("ready", flush=True)
    sys.stdin.readline()
    done = drain(handler) if work == "drain" else handler.clean()
    print(json.dumps({"done": done, "requests": handler.requests}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))

"""What archiving and packing of deleted records are compared with: what a decent engineer would write with boto3 and pyarrow.

`archive` is a plain function behind a table's stream: for each record that was removed it puts one object, on the condition
that none is there, and with what the archive's readers want as metadata. `pack` reads a day's objects from a folder, checks
each one against the hash that travels with it, makes a Parquet file of the same columns with the same compression, syncs it,
and reads it back to compare.

Usage: records.py archive|pack JOB
JOB is one line of JSON (`bench/src/aws/job.rs`). Says `ready`, waits for a line, works, and prints a line of JSON; then it
stays until its standard input ends, so that what it used can be read.
"""

import datetime
import hashlib
import json
import os
import sys

SERVICE = "orders"
GROUP_ROWS = 16_384
# Where the store keeps what travels with an object (`docs/formats.md`).
LABEL = "user.afterimage"


def archive(job):
    """Puts the removed records of all events."""
    import boto3
    from botocore.config import Config

    config = Config(s3={"addressing_style": "path"}, retries={"mode": "standard"})
    s3 = boto3.client("s3", endpoint_url=job["s3"], config=config)
    # A warm function has its connections.
    s3.head_bucket(Bucket=job["destination"])
    ready()
    done = 0
    with open(os.path.join(job["folder"], "batches.jsonl"), encoding="utf-8") as batches:
        for line in batches:
            for record in json.loads(line)["Records"]:
                if record["eventName"] == "REMOVE":
                    archive_one(s3, job["destination"], record)
                done += 1
    answer({"done": done, "requests": done})


def archive_one(s3, bucket, record):
    change = record["dynamodb"]
    deleted = datetime.datetime.fromtimestamp(change["ApproximateCreationDateTime"], datetime.timezone.utc)
    identity = record.get("userIdentity", {})
    cause = "ttl" if identity.get("principalId") == "dynamodb.amazonaws.com" else "user"
    key = "_".join(next(iter(value.values())) for value in change["Keys"].values())
    body = json.dumps(record, separators=(",", ":")).encode()
    s3.put_object(
        Bucket=bucket,
        Key=f"{SERVICE}/{deleted:%Y/%m/%d}/{key}.json",
        Body=body,
        ContentType="application/json",
        IfNoneMatch="*",
        Metadata={
            "service": SERVICE,
            "table": job_table(record),
            "cause": cause,
            "sequence": change["SequenceNumber"],
            "deleted-at": deleted.isoformat(),
            "hash": hash_of(body),
        },
    )


def job_table(record):
    return record["eventSourceARN"].split("/")[1]


def pack(job):
    """Packs the objects of one day: the folder is `source`, the file goes into `folder`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = ["object", "table", "partition_key", "partition_key_type", "sort_key", "sort_key_type", "cause", "sequence"]
    texts += ["image", "rest", "hash", "etag"]
    schema = pa.schema(
        [pa.field(name, pa.string()) for name in texts]
        + [pa.field("deleted_at", pa.timestamp("ms", tz="UTC")), pa.field("size", pa.int64())]
    )
    ready()
    folder, target = job["source"], os.path.join(job["folder"], "packed.parquet")
    before, size = hashlib.sha256(), 0
    with open(target, "wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=["table", "cause"]) as writer:
            rows = {name: [] for name in schema.names}
            for name in sorted(os.listdir(folder)):
                size += add(rows, os.path.join(folder, name), name, before)
                if len(rows["object"]) == GROUP_ROWS:
                    writer.write_table(pa.table(rows, schema=schema))
                    rows = {name: [] for name in schema.names}
            if rows["object"]:
                writer.write_table(pa.table(rows, schema=schema))
        file.flush()
        os.fsync(file.fileno())
    after, done = hashlib.sha256(), 0
    with pq.ParquetFile(target) as packed:
        for batch in packed.iter_batches(GROUP_ROWS):
            columns = [batch.column(name).to_pylist() for name in ("object", "rest", "image", "hash")]
            for name, rest, image, wanted in zip(*columns):
                found = hash_of(rest.replace("null", image, 1).encode())
                assert found == wanted, name
                after.update(f"{name} {found}".encode())
                done += 1
    assert before.digest() == after.digest()
    answer({"done": done, "bytes": size, "pack_bytes": os.path.getsize(target)})


def add(rows, path, name, digest):
    with open(path, "rb") as file:
        body = file.read()
        tags, _, label = os.getxattr(file.fileno(), LABEL).decode().partition("\n")
    found = hash_of(body)
    assert found == json.loads(label)["meta"]["afterimage-hash"], name
    text = body.decode()
    record = json.loads(text)
    ours, change = record["afterimage"], record["dynamodb"]
    image = json.dumps(change["OldImage"], separators=(",", ":"), ensure_ascii=False)
    keys = [next(iter(change["Keys"][attribute].items())) for attribute in ours["key"]]
    rows["object"].append(name)
    rows["table"].append(ours["table"])
    rows["partition_key"].append(keys[0][1])
    rows["partition_key_type"].append(keys[0][0])
    rows["sort_key"].append(keys[1][1] if len(keys) > 1 else None)
    rows["sort_key_type"].append(keys[1][0] if len(keys) > 1 else None)
    rows["cause"].append(ours["cause"])
    rows["sequence"].append(ours["sequence"])
    rows["deleted_at"].append(datetime.datetime.fromisoformat(ours["deleted_at"].replace("Z", "+00:00")))
    rows["size"].append(len(body))
    rows["image"].append(image)
    rows["rest"].append(text.replace(image, "null", 1))
    rows["hash"].append(found)
    rows["etag"].append(tags.split(" ")[1])
    digest.update(f"{name} {found}".encode())
    return len(body)


def hash_of(body):
    """As `docs/formats.md` has it: over length and content, the first 16 bytes."""
    return hashlib.sha256(len(body).to_bytes(8, "big") + body).hexdigest()[:32]


def ready():
    print("ready", flush=True)
    sys.stdin.readline()


def answer(said):
    print(json.dumps(said), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    {"archive": archive, "pack": pack}[sys.argv[1]](json.loads(sys.argv[2]))

"""Client programs: aws, s5cmd and rclone, as a person uses them."""

import hashlib

import pytest
from conftest import ODD_KEYS, rclone

MIB = 1024 * 1024


def keys_of(s3, bucket):
    return [item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def large_file(folder, name):
    content = hashlib.sha256(name.encode()).digest() * (17 * MIB // 32)
    path = folder / name
    path.write_bytes(content)
    return path, content


# aws


def test_aws_makes_a_bucket_and_moves_files(endpoint, s3, tmp_path):
    endpoint.run("aws", "s3", "mb", "s3://made-by-aws")
    small = tmp_path / "small.txt"
    small.write_text("hello")
    large, content = large_file(tmp_path, "large.bin")
    endpoint.run("aws", "s3", "cp", str(small), "s3://made-by-aws/a b/é+%.txt")
    endpoint.run("aws", "s3", "cp", str(large), "s3://made-by-aws/large.bin")
    assert keys_of(s3, "made-by-aws") == ["a b/é+%.txt", "large.bin"]
    assert s3.head_object(Bucket="made-by-aws", Key="a b/é+%.txt")["ContentType"] == "text/plain"
    endpoint.run("aws", "s3", "mv", "s3://made-by-aws/large.bin", "s3://made-by-aws/moved.bin")
    endpoint.run("aws", "s3", "cp", "s3://made-by-aws/moved.bin", str(tmp_path / "back.bin"))
    assert (tmp_path / "back.bin").read_bytes() == content
    assert "a b/é+%.txt" in endpoint.run("aws", "s3", "ls", "--recursive", "s3://made-by-aws")
    endpoint.run("aws", "s3", "rm", "--recursive", "s3://made-by-aws")
    assert keys_of(s3, "made-by-aws") == []


def test_aws_syncs_odd_names(endpoint, s3, bucket, tmp_path):
    files = {key: key.encode() for key in ODD_KEYS if not key.endswith(" ") and key != "folder/plain"}
    for key, content in files.items():
        path = tmp_path / "up" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    endpoint.run("aws", "s3", "sync", str(tmp_path / "up"), f"s3://{bucket}")
    assert keys_of(s3, bucket) == sorted(files)
    endpoint.run("aws", "s3", "sync", f"s3://{bucket}", str(tmp_path / "down"))
    for key, content in files.items():
        assert (tmp_path / "down" / key).read_bytes() == content
    assert endpoint.run("aws", "s3", "sync", str(tmp_path / "up"), f"s3://{bucket}").strip() == ""


def test_aws_is_told_why_a_destination_is_not_written(endpoint, tmp_path):
    (tmp_path / "a").write_text("x")
    said = endpoint.run("aws", "s3", "cp", str(tmp_path / "a"), "s3://copies/a", ok=False)
    assert "AccessDenied" in said and "holds copies" in said
    assert "InvalidBucketName" in endpoint.run("aws", "s3", "mb", "s3://other-copies", ok=False)


# s5cmd


def test_s5cmd_moves_files(endpoint, s3, bucket, tmp_path):
    large, content = large_file(tmp_path, "large.bin")
    endpoint.run("s5cmd", "cp", "--part-size", "5", str(large), f"s3://{bucket}/large.bin")
    endpoint.run("s5cmd", "cp", f"s3://{bucket}/large.bin", f"s3://{bucket}/again.bin")
    endpoint.run("s5cmd", "cp", f"s3://{bucket}/again.bin", str(tmp_path / "back.bin"))
    assert (tmp_path / "back.bin").read_bytes() == content
    assert "again.bin" in endpoint.run("s5cmd", "ls", f"s3://{bucket}/")
    endpoint.run("s5cmd", "rm", f"s3://{bucket}/*")
    assert keys_of(s3, bucket) == []
    assert "AccessDenied" in endpoint.run("s5cmd", "cp", str(large), "s3://copies/large.bin", ok=False)


# s5cmd reads `*`, `?` and `[` as patterns.
@pytest.mark.parametrize("key", [key for key in ODD_KEYS if not set("*?[\\") & set(key)])
def test_s5cmd_odd_names(endpoint, s3, bucket, tmp_path, key):
    (tmp_path / "up").write_bytes(key.encode())
    endpoint.run("s5cmd", "cp", str(tmp_path / "up"), f"s3://{bucket}/{key}")
    assert keys_of(s3, bucket) == [key]
    endpoint.run("s5cmd", "cp", f"s3://{bucket}/{key}", str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == key.encode()
    endpoint.run("s5cmd", "rm", f"s3://{bucket}/{key}")
    assert keys_of(s3, bucket) == []


# rclone


def test_rclone_syncs_odd_names_and_finds_nothing_more_to_do(endpoint, s3, bucket, tmp_path):
    # rclone writes a few characters of local names in another way in S3 and back (its documented encoding).
    files = {key: key.encode() for key in ODD_KEYS if key != "folder/plain" and key != "back\\slash"}
    for key, content in files.items():
        path = tmp_path / "up" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    rclone(endpoint, "sync", str(tmp_path / "up"), f"remote:{bucket}/backup")
    assert keys_of(s3, bucket) == sorted(f"backup/{key}" for key in files)
    assert "0 differences found" in rclone(endpoint, "check", str(tmp_path / "up"), f"remote:{bucket}/backup")
    rclone(endpoint, "copy", f"remote:{bucket}/backup", str(tmp_path / "down"))
    for key, content in files.items():
        assert (tmp_path / "down" / key).read_bytes() == content
    rclone(endpoint, "delete", f"remote:{bucket}/backup")
    assert keys_of(s3, bucket) == []


def test_rclone_moves_large_files(endpoint, s3, bucket, tmp_path):
    large, content = large_file(tmp_path, "large.bin")
    cut = ("--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M", "--s3-copy-cutoff", "5M")
    rclone(endpoint, *cut, "copyto", str(large), f"remote:{bucket}/large.bin")
    rclone(endpoint, *cut, "copyto", f"remote:{bucket}/large.bin", f"remote:{bucket}/again.bin")
    rclone(endpoint, "copyto", f"remote:{bucket}/again.bin", str(tmp_path / "back.bin"))
    assert (tmp_path / "back.bin").read_bytes() == content
    # rclone asks with `Expect: 100-continue` and, refused, sends the body now and then all the same: it must not find the
    # connection broken before it has read why.
    for _ in range(5):
        told = rclone(endpoint, "copyto", str(large), "remote:copies/large.bin", ok=False)
        assert "AccessDenied" in told, told
    assert "large.bin" not in keys_of(s3, "copies")

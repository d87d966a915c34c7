"""boto3: the client that most programs use, with its default checksums."""

import hashlib
import io
import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError
from conftest import ODD_KEYS

MIB = 1024 * 1024


def refused(call, **arguments):
    """The code and status of a refusal."""
    with pytest.raises(ClientError) as error:
        call(**arguments)
    answer = error.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def test_put_get_head_list_delete(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="a", Body=b"hello", ContentType="text/plain", Metadata={"colour": "blue"})
    assert put["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    assert put["ChecksumCRC32"] == "NhCmhg=="
    got = s3.get_object(Bucket=bucket, Key="a")
    assert got["Body"].read() == b"hello"
    assert (got["ContentType"], got["Metadata"], got["ContentLength"]) == ("text/plain", {"colour": "blue"}, 5)
    head = s3.head_object(Bucket=bucket, Key="a", ChecksumMode="ENABLED")
    assert (head["ETag"], head["ChecksumCRC32"]) == (put["ETag"], "NhCmhg==")
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["a"]
    s3.delete_object(Bucket=bucket, Key="a")
    assert refused(s3.get_object, Bucket=bucket, Key="a") == ("NoSuchKey", 404)
    assert refused(s3.head_object, Bucket=bucket, Key="a") == ("404", 404)


@pytest.mark.parametrize("key", [*ODD_KEYS, "..", "../up", "a//b", "/lead", "trail/", "tab\tline\n", "\x01", "k" * 1024])
def test_odd_keys(s3, bucket, key):
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    assert [item["Key"] for item in s3.list_objects(Bucket=bucket)["Contents"]] == [key]
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": key})
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == key.encode()
    # XML 1.0 has no way to name U+0001, and boto3 cannot read an answer that does (nor that of AWS): ask for none.
    quiet = key == "\x01"
    deleted = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}], "Quiet": quiet})
    assert quiet or [item["Key"] for item in deleted["Deleted"]] == [key]
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix=key)


def test_pages(s3, bucket):
    keys = sorted(f"{n % 7}/{n:03}" for n in range(250))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=b""), keys))
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 37})
    assert [item["Key"] for page in pages for item in page["Contents"]] == keys
    pages = s3.get_paginator("list_objects").paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 3})
    assert [item["Prefix"] for page in pages for item in page["CommonPrefixes"]] == [f"{n}/" for n in range(7)]


def test_multipart_with_default_checksums(s3, bucket):
    content = bytes(range(256)) * (MIB // 16)  # 16 MiB
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.upload_fileobj(io.BytesIO(content), bucket, "large", Config=config, ExtraArgs={"Metadata": {"a": "1"}})
    head = s3.head_object(Bucket=bucket, Key="large", ChecksumMode="ENABLED")
    assert head["ETag"].endswith('-4"') and head["Metadata"] == {"a": "1"}
    assert head["ChecksumCRC32"].endswith("-4") and head["ChecksumType"] == "COMPOSITE"
    got = io.BytesIO()
    s3.download_fileobj(bucket, "large", got, Config=config)
    assert got.getvalue() == content
    s3.copy({"Bucket": bucket, "Key": "large"}, bucket, "again", Config=config)
    assert s3.get_object(Bucket=bucket, Key="again")["Body"].read() == content


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_checksum_algorithms(s3, bucket, algorithm):
    put = s3.put_object(Bucket=bucket, Key="a", Body=b"hello", ChecksumAlgorithm=algorithm)
    got = s3.get_object(Bucket=bucket, Key="a", ChecksumMode="ENABLED")
    assert got["Body"].read() == b"hello"
    assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]


def test_wrong_checksums_leave_nothing(s3, bucket):
    for wrong in [{"ContentMD5": "XUFAKrxLKna5cZ2REBfFkg=="}, {"ChecksumSHA1": "qvTGHdzF6KLavt4PO0gs2a6pQ00="}]:
        assert refused(s3.put_object, Bucket=bucket, Key="a", Body=b"other", **wrong) == ("BadDigest", 400)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_conditions_and_ranges(s3, bucket):
    tag = s3.put_object(Bucket=bucket, Key="a", Body=b"0123456789", IfNoneMatch="*")["ETag"]
    taken = refused(s3.put_object, Bucket=bucket, Key="a", Body=b"x", IfNoneMatch="*")
    assert taken == ("PreconditionFailed", 412)
    assert refused(s3.get_object, Bucket=bucket, Key="a", IfNoneMatch=tag) == ("304", 304)
    got = s3.get_object(Bucket=bucket, Key="a", Range="bytes=2-4")
    assert (got["Body"].read(), got["ContentRange"]) == (b"234", "bytes 2-4/10")
    assert refused(s3.get_object, Bucket=bucket, Key="a", Range="bytes=10-") == ("InvalidRange", 416)
    s3.put_object(Bucket=bucket, Key="a", Body=b"new", IfMatch=tag)
    assert refused(s3.put_object, Bucket=bucket, Key="a", Body=b"x", IfMatch=tag) == ("PreconditionFailed", 412)


def test_tags(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"", Tagging="colour=blue&size=a%20b")
    tags = s3.get_object_tagging(Bucket=bucket, Key="a")["TagSet"]
    assert tags == [{"Key": "colour", "Value": "blue"}, {"Key": "size", "Value": "a b"}]
    s3.put_object_tagging(Bucket=bucket, Key="a", Tagging={"TagSet": [{"Key": "é", "Value": "&"}]})
    assert s3.get_object_tagging(Bucket=bucket, Key="a")["TagSet"] == [{"Key": "é", "Value": "&"}]
    s3.delete_object_tagging(Bucket=bucket, Key="a")
    assert s3.get_object_tagging(Bucket=bucket, Key="a")["TagSet"] == []


def test_presigned(endpoint, s3, bucket):
    # In us-east-1 boto3 presigns with Signature Version 2 unless told otherwise.
    modern = endpoint.client(signature_version="s3v4")
    put = modern.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "a b+c"})
    request = urllib.request.Request(put, data=b"hello", method="PUT")
    assert urllib.request.urlopen(request).status == 200
    get = modern.generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": "a b+c", "ResponseContentType": "text/csv"}
    )
    answer = urllib.request.urlopen(get)
    assert (answer.read(), answer.headers["content-type"]) == (b"hello", "text/csv")
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(get.replace("text%2Fcsv", "text%2Fhtml"))
    assert error.value.code == 403
    old = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b+c"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(old)
    assert error.value.code == 400, "Signature Version 2 is refused"


def test_wrong_credentials(endpoint):
    wrong = endpoint.client(secret_key="wrong")
    assert refused(wrong.list_buckets) == ("SignatureDoesNotMatch", 403)
    unknown = endpoint.client(access_key="AKIDUNKNOWN")
    assert refused(unknown.list_buckets) == ("InvalidAccessKeyId", 403)


def test_every_refusal_says_why(endpoint, s3):
    wrong = endpoint.client(secret_key="wrong")
    for call, arguments, words in [
        (wrong.list_buckets, {}, "credentials show"),
        (s3.create_bucket, {"Bucket": "Capitals"}, "lower-case"),
        (s3.put_object, {"Bucket": "source", "Key": "k" * 1025, "Body": b"x"}, "1,024 bytes"),
        (s3.get_object, {"Bucket": "source", "Key": "nosuch"}, "no object `nosuch`"),
        (s3.list_objects_v2, {"Bucket": "nosuch"}, "no bucket `nosuch`"),
    ]:
        with pytest.raises(ClientError) as error:
            call(**arguments)
        assert words in error.value.response["Error"].get("Message", ""), error.value


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("put_object", {"Key": "a", "Body": b"x"}),
        ("copy_object", {"Key": "a", "CopySource": "source/a"}),
        ("delete_object", {"Key": "a"}),
        ("create_multipart_upload", {"Key": "a"}),
        ("upload_part", {"Key": "a", "UploadId": "u", "PartNumber": 1, "Body": b"x"}),
        ("abort_multipart_upload", {"Key": "a", "UploadId": "u"}),
        ("put_object_tagging", {"Key": "a", "Tagging": {"TagSet": []}}),
        ("delete_bucket", {}),
    ],
)
def test_destinations_are_never_written(s3, call, arguments):
    assert refused(getattr(s3, call), Bucket="copies", **arguments) == ("AccessDenied", 403)


def test_destinations_refuse_every_key_of_a_batch(s3):
    answer = s3.delete_objects(Bucket="copies", Delete={"Objects": [{"Key": "a"}, {"Key": "b"}]})
    assert [error["Code"] for error in answer["Errors"]] == ["AccessDenied", "AccessDenied"]
    assert "Deleted" not in answer


def test_what_is_not_supported_says_so(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    for call, arguments in [
        ("put_object", {"Key": "b", "Body": b"x", "ServerSideEncryption": "AES256"}),
        ("put_object", {"Key": "b", "Body": b"x", "StorageClass": "GLACIER"}),
        ("put_object", {"Key": "b", "Body": b"x", "ACL": "public-read"}),
        ("get_object", {"Key": "a", "VersionId": "1"}),
        ("put_bucket_versioning", {"VersioningConfiguration": {"Status": "Enabled"}}),
        ("put_bucket_lifecycle_configuration", {"LifecycleConfiguration": {"Rules": []}}),
    ]:
        assert refused(getattr(s3, call), Bucket=bucket, **arguments) == ("NotImplemented", 501), call
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["a"]


def test_a_client_that_breaks_off_leaves_nothing(endpoint, s3, bucket):
    modern = endpoint.client(signature_version="s3v4")
    url = modern.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "cut"})
    host, port = endpoint.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        target = url.removeprefix(endpoint.url)
        head = f"PUT {target} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode() + b"x" * 300_000)
    s3.put_object(Bucket=bucket, Key="whole", Body=b"x")
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["whole"]


def test_many_writers_of_one_key_leave_one_whole_content(s3, bucket):
    contents = [bytes([65 + n]) * 100_000 for n in range(8)]
    start = threading.Barrier(len(contents))

    def write(content):
        start.wait()
        s3.put_object(Bucket=bucket, Key="a", Body=content)

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write, contents))
    assert s3.get_object(Bucket=bucket, Key="a")["Body"].read() in contents

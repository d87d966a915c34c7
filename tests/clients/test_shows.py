"""The main story, told with each stock client: overwritten, deleted, brought back, and gone only after the grace."""

import datetime
import pathlib

import boto3.s3.transfer
import pytest
from conftest import LOOKS, rclone, serving

KEY = "Assignment1.txt"
DRAFTS = [f"draft {n} " + "é🦀\r\n" * n for n in range(1, 5)]

# What is due goes at the next `clean --now` and never by itself: a test decides when that is.
CONFIG = """
[[policy]]
name = "source"
source = "local://source"
destination = "local://copies"
keep = 3
grace = "{grace}"
clean = "cron(0 0 1 1 ? 2099)"
"""


class Aws:
    def put(self, endpoint, path):
        endpoint.run("aws", "s3", "cp", "--metadata", "colour=blue", str(path), f"s3://source/{KEY}")

    def delete(self, endpoint):
        endpoint.run("aws", "s3", "rm", f"s3://source/{KEY}")

    def get(self, endpoint, path):
        endpoint.run("aws", "s3", "cp", f"s3://source/{KEY}", str(path))


class Boto3:
    def put(self, endpoint, path):
        extra = {"Metadata": {"colour": "blue"}, "ContentType": "text/plain"}
        endpoint.client().upload_file(str(path), "source", KEY, ExtraArgs=extra)

    def delete(self, endpoint):
        endpoint.client().delete_object(Bucket="source", Key=KEY)

    def get(self, endpoint, path):
        endpoint.client().download_file("source", KEY, str(path))


class S5cmd:
    def put(self, endpoint, path):
        endpoint.run("s5cmd", "cp", "--metadata", "colour=blue", str(path), f"s3://source/{KEY}")

    def delete(self, endpoint):
        endpoint.run("s5cmd", "rm", f"s3://source/{KEY}")

    def get(self, endpoint, path):
        endpoint.run("s5cmd", "cp", f"s3://source/{KEY}", str(path))


class Rclone:
    def put(self, endpoint, path):
        rclone(endpoint, "copyto", "--metadata", "--metadata-set", "colour=blue", str(path), f"remote:source/{KEY}")

    def delete(self, endpoint):
        rclone(endpoint, "deletefile", f"remote:source/{KEY}")

    def get(self, endpoint, path):
        rclone(endpoint, "copyto", f"remote:source/{KEY}", str(path))


@pytest.fixture(params=[Aws, Boto3, S5cmd, Rclone], ids=lambda client: client.__name__.lower())
def client(request):
    return request.param()


@pytest.fixture
def serve(tmp_path):
    """Serves a fresh folder with that grace."""

    def start(grace):
        (tmp_path / "show.toml").write_text(CONFIG.format(grace=grace))
        return serving(tmp_path, "--config", "show.toml")

    return start


def put_all(endpoint, client, folder):
    """Puts every draft; the name and time of the copy that each one got, oldest first."""
    copies = []
    for draft in DRAFTS:
        path = pathlib.Path(folder) / KEY
        path.write_text(draft, newline="")
        client.put(endpoint, path)
        endpoint.settled()
        newest = history(endpoint)["copies"][0]
        copies.append((newest["copy_key"], newest["created_at_ms"]))
    return copies


def history(endpoint):
    [of_policy] = endpoint.afterimage("history", KEY)["policies"]
    return of_policy


def states(endpoint):
    return {copy["copy_key"]: copy["state"] for copy in history(endpoint)["copies"]}


def files(endpoint):
    """The copies as a person sees them who looks into the folder."""
    return sorted(path.name for path in (endpoint.folder / "data/buckets/copies").iterdir() if path.is_file())


def listed(endpoint):
    return [item["Key"] for item in endpoint.client().list_objects_v2(Bucket="copies").get("Contents", [])]


def moment(at_ms):
    return datetime.datetime.fromtimestamp(at_ms / 1000, datetime.timezone.utc).isoformat(timespec="milliseconds")


def test_overwritten_deleted_and_gone_after_the_grace(serve, client, tmp_path):
    with serve("1s") as endpoint:
        names = [name for name, _ in put_all(endpoint, client, tmp_path)]
        oldest, kept = names[0], names[1:]
        assert states(endpoint) == dict.fromkeys(kept, "active")
        assert files(endpoint) == listed(endpoint) == sorted(kept), "the oldest is gone"

        client.delete(endpoint)
        endpoint.settled()
        assert states(endpoint) == dict.fromkeys(kept, "disowned")
        assert files(endpoint) == listed(endpoint) == sorted(kept), "the bytes are still there"

        for _ in range(LOOKS):
            endpoint.afterimage("clean", "--now")
            if not states(endpoint):
                break
        assert states(endpoint) == {}
        assert files(endpoint) == listed(endpoint) == []
        assert endpoint.afterimage("status")["policies"][0]["disowned"] == 0
        audit = endpoint.afterimage("audit", "--lines", "100")
        assert audit["faults"] == []
        for lines in (audit["newest"], history(endpoint)["journal"]):
            purged = [line["copy_key"] for line in lines if line["action"] == "purge"]
            assert sorted(purged) == sorted([oldest, *kept])


def test_brought_back_with_its_history_and_as_it_was(serve, client, tmp_path):
    with serve("1h") as endpoint:
        copies = put_all(endpoint, client, tmp_path)
        before = endpoint.client().head_object(Bucket="source", Key=KEY)
        assert before["Metadata"]["colour"] == "blue"
        client.delete(endpoint)
        endpoint.settled()
        assert endpoint.afterimage("clean", "--now")["reports"][0]["counts"].get("purged", 0) == 0, "the grace holds"

        endpoint.afterimage("undelete", KEY)
        endpoint.settled()
        client.get(endpoint, tmp_path / "back.txt")
        assert (tmp_path / "back.txt").read_bytes() == DRAFTS[-1].encode()
        after = endpoint.client().head_object(Bucket="source", Key=KEY)
        for what in ("ETag", "ContentType", "ContentLength", "Metadata"):
            assert after[what] == before[what], what
        active = [copy for copy in history(endpoint)["copies"] if copy["state"] == "active"]
        # What was put back and the copy that it came from take one place of `keep` together.
        assert len(active) == 4
        contents = {endpoint.client().get_object(Bucket="copies", Key=copy["copy_key"])["Body"].read() for copy in active}
        assert contents == {draft.encode() for draft in DRAFTS[1:]}, "the older ones are in the history again"

        for (_, at_ms), draft in zip(copies[1:], DRAFTS[1:]):
            folder = tmp_path / f"as of {at_ms}"
            endpoint.afterimage("restore", KEY, "--at", moment(at_ms), "--to", str(folder))
            assert (folder / KEY).read_bytes() == draft.encode()


def test_uploaded_in_parts_removed_and_brought_back_again_and_again(serve, tmp_path):
    """What was uploaded in parts has another tag once it is put back: it still takes one place of `keep`."""
    config = boto3.s3.transfer.TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    drafts = [bytes([n]) * (6 << 20) for n in range(3)]
    with serve("1h") as endpoint:
        for draft in drafts:
            (tmp_path / KEY).write_bytes(draft)
            endpoint.client().upload_file(str(tmp_path / KEY), "source", KEY, Config=config)
            endpoint.settled()
        assert endpoint.client().head_object(Bucket="source", Key=KEY)["ETag"].endswith('-2"')
        for _ in range(3):
            endpoint.client().delete_object(Bucket="source", Key=KEY)
            endpoint.settled()
            endpoint.afterimage("undelete", KEY)
            endpoint.settled()
            assert endpoint.client().get_object(Bucket="source", Key=KEY)["Body"].read() == drafts[-1]
            active = [copy for copy in history(endpoint)["copies"] if copy["state"] == "active"]
            contents = [endpoint.client().get_object(Bucket="copies", Key=copy["copy_key"])["Body"].read() for copy in active]
            assert contents == [drafts[2], drafts[2], drafts[1], drafts[0]], "put back, and every version of the history"

"""The plain loop that draining is compared with: one process, one event after the other, sqlite3, shutil, fsync.

It leaves what Afterimage leaves, with the same durability: for every event a copy (temporary file, fsync, rename, fsync of
the folder) and a row; copies beyond `keep` are claimed, journalled, deleted, and their rows too; then the event is deleted.

Usage: drain.py WORK_FOLDER KEEP
WORK_FOLDER holds spool.sqlite (table events: id, source path, copy path, key, copy key, order) and gets copies/,
catalog.sqlite and journal.jsonl. Prints seconds of wall clock and of CPU.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import sys
import time


def fsync_folder(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def durable_copy(source, target):
    folder = os.path.dirname(target)
    os.makedirs(folder, exist_ok=True)
    temporary = target + ".tmp"
    shutil.copyfile(source, temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.rename(temporary, target)
    fsync_folder(folder)


def open_durably(path):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def main(work, keep):
    spool = open_durably(os.path.join(work, "spool.sqlite"))
    catalog = open_durably(os.path.join(work, "catalog.sqlite"))
    catalog.execute(
        'CREATE TABLE copies (original_key TEXT, copy_key TEXT, "order" TEXT, created_at INTEGER, status TEXT, '
        "disowned_at INTEGER, reason TEXT, etag TEXT, size INTEGER, PRIMARY KEY (original_key, copy_key)) WITHOUT ROWID"
    )
    catalog.execute(
        'CREATE INDEX "status-disowned_at-index" ON copies (status, disowned_at) WHERE disowned_at IS NOT NULL'
    )
    journal = open(os.path.join(work, "journal.jsonl"), "a")
    previous = ""
    events = spool.execute("SELECT id, source, target, key, copy_key, ord FROM events ORDER BY id").fetchall()

    started, cpu = time.perf_counter(), time.process_time()
    for event, source, target, key, copy_key, order in events:
        durable_copy(source, target)
        with open(target, "rb") as file:
            etag = hashlib.md5(file.read()).hexdigest()
        catalog.execute(
            "INSERT OR IGNORE INTO copies VALUES (?, ?, ?, ?, 'active', NULL, NULL, ?, ?)",
            (key, copy_key, order, int(time.time() * 1000), etag, os.path.getsize(target)),
        )
        catalog.commit()
        active = catalog.execute(
            "SELECT copy_key FROM copies WHERE original_key = ? AND status = 'active' ORDER BY \"order\" DESC", (key,)
        ).fetchall()
        for (surplus,) in active[keep:]:
            catalog.execute(
                "UPDATE copies SET status = 'disowned', disowned_at = ?, reason = 'surplus' "
                "WHERE original_key = ? AND copy_key = ? AND status = 'active'",
                (int(time.time() * 1000), key, surplus),
            )
            catalog.commit()
            line = json.dumps({"action": "purge", "key": key, "copy_key": surplus, "previous": previous})
            previous = hashlib.sha256(line.encode()).hexdigest()
            journal.write(line + "\n")
            journal.flush()
            os.fsync(journal.fileno())
            os.unlink(os.path.join(work, "copies", surplus))
            catalog.execute("DELETE FROM copies WHERE original_key = ? AND copy_key = ?", (key, surplus))
            catalog.commit()
        spool.execute("DELETE FROM events WHERE id = ?", (event,))
        spool.commit()
    print(json.dumps({"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu, "events": len(events)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

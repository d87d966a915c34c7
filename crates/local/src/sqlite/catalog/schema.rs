//! The layout of a catalog file. People read it with `sqlite3`: text, whole numbers, moments in Unix milliseconds.
//!
//! A row of `copies` is put by `upsert`, moved by conditional changes, and deleted after its bytes (I1, V4). `totals`
//! changes in the same transaction as the rows that it counts, so it is exact whatever is killed when.

use crate::sqlite::open::Schema;

/// Version of a row's layout, in its column `format`.
pub(super) const ROW_FORMAT: i64 = 1;

/// The catalog of one policy.
pub static CATALOG: Schema = Schema {
    what: "catalog",
    application_id: 0x4149_4341, // "AICA"
    migrations: &[LAYOUT_1, LAYOUT_2],
    remedy: "stop `serve` and run `afterimage reconcile --rebuild`, which sets it aside and makes it again",
};

const LAYOUT_1: &str = r#"
CREATE TABLE copies (
    original_key  TEXT NOT NULL,     -- the object's key at the source
    copy_key      TEXT NOT NULL,     -- the copy's name in the destination
    created_at    INTEGER NOT NULL,  -- Unix ms, of the event
    status        TEXT NOT NULL CHECK (status IN ('active', 'surplus', 'disowned')),
    disowned_at   INTEGER,           -- disowned: Unix ms of handling; surplus: when it is due; active: none
    removed_at    INTEGER,           -- Unix ms of the removal's event
    reason        TEXT,              -- why it is disowned
    "order"       TEXT NOT NULL,     -- its place among the versions of its key
    floating      INTEGER NOT NULL,  -- 1: the order is only a lower bound
    origin        TEXT NOT NULL,     -- event, look, or undelete@<Unix ms>
    rev           TEXT NOT NULL,     -- changed by every write of the row
    version_id    TEXT,              -- at the source
    etag          TEXT NOT NULL,     -- at the source
    size          INTEGER NOT NULL,  -- bytes
    checksum      TEXT,              -- CRC-64/NVME, base64 of 8 big-endian bytes
    storage_class TEXT,              -- in the destination
    format        INTEGER NOT NULL,  -- version of this row's layout
    PRIMARY KEY (original_key, copy_key)
) STRICT, WITHOUT ROWID;

CREATE INDEX "status-disowned_at-index" ON copies (status, disowned_at) WHERE disowned_at IS NOT NULL;

CREATE TABLE tombstones (
    original_key TEXT NOT NULL PRIMARY KEY,
    "order"      TEXT NOT NULL,      -- rows at or below it are removed
    removed_at   INTEGER NOT NULL,   -- Unix ms of the removal's event
    noted_at     INTEGER NOT NULL    -- Unix ms of handling
) STRICT, WITHOUT ROWID;

CREATE INDEX "noted_at-index" ON tombstones (noted_at);

CREATE TABLE totals (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    live_keys INTEGER NOT NULL,      -- keys with at least one row that is not disowned
    active    INTEGER NOT NULL,      -- rows that are not disowned
    disowned  INTEGER NOT NULL,
    bytes     INTEGER NOT NULL       -- of all rows
) STRICT;
INSERT INTO totals VALUES (1, 0, 0, 0, 0);

CREATE TABLE policy_state (
    id              INTEGER PRIMARY KEY CHECK (id = 1),
    tripped_at      INTEGER,         -- the breaker: since when (Unix ms),
    tripped_removed INTEGER,         --   after how many removed keys,
    tripped_live    INTEGER,         --   with how many keys left
    released_at     INTEGER,         -- removals noted up to then are forgiven
    cleaned_at      INTEGER,         -- when the last clean ended without failures
    reconciled_at   INTEGER,         -- when the last reconcile ended,
    reconciled_left INTEGER          --   and the differences that it left
) STRICT;
INSERT INTO policy_state (id) VALUES (1);

CREATE TABLE leases (
    name   TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    until  INTEGER NOT NULL          -- Unix ms
) STRICT, WITHOUT ROWID;
"#;

/// A tombstone says whether its order is only a lower bound.
const LAYOUT_2: &str = "
ALTER TABLE tombstones ADD COLUMN floating INTEGER NOT NULL DEFAULT 0; -- 1: the order is only a lower bound
";

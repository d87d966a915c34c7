//! The layout of `state.sqlite`: buckets, object index, multipart uploads, event spool, dead letters.
//!
//! One database for all of them, because a write to a source must put the object's row and its event in one transaction
//! (I8). Described for people in `docs/formats.md`.

use crate::sqlite::open::Schema;

/// The layout, and how to get there from older ones.
pub(super) static SCHEMA: Schema = Schema {
    what: "state",
    application_id: 0x4146_5354, // "AFST"
    migrations: &[FIRST, SPOOL_BY_TIME, COMPLETED],
    remedy: "move it away and start again: the buckets' folders are read anew, then run `afterimage reconcile`",
};

const FIRST: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE buckets (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  role TEXT NOT NULL CHECK (role IN ('source', 'destination')),
  root TEXT NOT NULL, -- absolute, or below the data folder
  created_at INTEGER NOT NULL,
  deleted INTEGER NOT NULL DEFAULT 0,
  unread INTEGER NOT NULL DEFAULT 0 -- its folder's files have not all become rows yet
);

CREATE TABLE objects (
  bucket INTEGER NOT NULL,
  key TEXT NOT NULL,
  path TEXT,
  sequencer TEXT,
  event INTEGER,
  etag TEXT NOT NULL,
  size INTEGER NOT NULL,
  last_modified INTEGER NOT NULL,
  checksum TEXT,
  attributes TEXT,
  PRIMARY KEY (bucket, key)
) WITHOUT ROWID;

CREATE TABLE superseded (
  bucket INTEGER NOT NULL,
  key TEXT NOT NULL,
  path TEXT,
  sequencer TEXT NOT NULL,
  event INTEGER,
  etag TEXT NOT NULL,
  size INTEGER NOT NULL,
  last_modified INTEGER NOT NULL,
  checksum TEXT,
  attributes TEXT,
  PRIMARY KEY (bucket, key, sequencer)
) WITHOUT ROWID;
CREATE INDEX superseded_by_event ON superseded (event);

CREATE TABLE uploads (
  bucket INTEGER NOT NULL,
  key TEXT NOT NULL,
  id TEXT NOT NULL,
  initiated INTEGER NOT NULL,
  attributes TEXT,
  PRIMARY KEY (bucket, key, id)
) WITHOUT ROWID;

CREATE TABLE parts (
  upload TEXT NOT NULL,
  number INTEGER NOT NULL,
  file TEXT NOT NULL,
  etag TEXT NOT NULL,
  size INTEGER NOT NULL,
  last_modified INTEGER NOT NULL,
  checksum TEXT NOT NULL,
  sums TEXT,
  PRIMARY KEY (upload, number)
) WITHOUT ROWID;

CREATE TABLE spool (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  bucket TEXT NOT NULL,
  key TEXT NOT NULL,
  time INTEGER NOT NULL,
  position TEXT,
  what TEXT NOT NULL CHECK (what IN ('created', 'removed', 'version-removed')),
  version_id TEXT,
  etag TEXT,
  size INTEGER,
  attempts INTEGER NOT NULL DEFAULT 0,
  not_before INTEGER NOT NULL DEFAULT 0,
  why TEXT
);

CREATE TABLE dead (
  id INTEGER PRIMARY KEY,
  bucket TEXT NOT NULL,
  key TEXT NOT NULL,
  time INTEGER NOT NULL,
  position TEXT,
  what TEXT NOT NULL,
  version_id TEXT,
  etag TEXT,
  size INTEGER,
  attempts INTEGER NOT NULL,
  why TEXT NOT NULL,
  died_at INTEGER NOT NULL
);
";

/// Events that were put back are found by their time. Partial, so that a put costs nothing more: few events fail.
const SPOOL_BY_TIME: &str = "CREATE INDEX spool_by_time ON spool (not_before) WHERE not_before > 0;";

/// Uploads that were completed, for clients that did not hear the answer.
const COMPLETED: &str = "
CREATE TABLE completed (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  bucket INTEGER NOT NULL,
  key TEXT NOT NULL,
  upload TEXT NOT NULL UNIQUE,
  sequencer TEXT,
  etag TEXT NOT NULL,
  size INTEGER NOT NULL,
  last_modified INTEGER NOT NULL,
  checksum TEXT,
  attributes TEXT
);
";

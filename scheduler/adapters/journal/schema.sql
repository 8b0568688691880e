-- Version 5 of the journal.  Files of older versions get here by the steps in files.py.
-- Documents are the JSON of core.model; the columns beside them are what is searched for.

CREATE TABLE meta (
    only_row        INTEGER PRIMARY KEY CHECK (only_row = 1),
    opened          INTEGER NOT NULL,  -- how often the file was opened: whose number this is may write
    incarnation     INTEGER NOT NULL,  -- of the life that opened it last; at least one more than that before
    vouched_at      INTEGER,           -- when a scheduler last said that it was alive; microseconds, as below
    refused_commits INTEGER NOT NULL   -- how often the disk failed in the middle of one
);
INSERT INTO meta VALUES (1, 0, 0, NULL, 0);

CREATE TABLE jobs (
    id              TEXT PRIMARY KEY NOT NULL,
    status          TEXT NOT NULL,
    user            TEXT NOT NULL,
    project         TEXT NOT NULL,
    created_at      INTEGER NOT NULL,  -- microseconds since the epoch: text would not sort
    version         INTEGER NOT NULL,
    fence           INTEGER NOT NULL,
    queue_seq       INTEGER,
    idempotency_key TEXT,
    doc             TEXT NOT NULL
);
CREATE INDEX jobs_active ON jobs (created_at, id) WHERE status IN ('pending', 'queued', 'running', 'paused');
CREATE UNIQUE INDEX jobs_by_key ON jobs (user, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE listing (  -- of each job what lists are filtered and sorted by: narrow, so that all of it is read soon
    created_at INTEGER NOT NULL,
    id         TEXT NOT NULL REFERENCES jobs (id),
    updated_at INTEGER NOT NULL,
    status     TEXT NOT NULL,
    user       TEXT NOT NULL,
    project    TEXT NOT NULL,
    name       TEXT NOT NULL,  -- in lower case, as by Python's `casefold`
    labels     TEXT NOT NULL,  -- in lower case; `value` and `key=value` of each, between unit separators
    PRIMARY KEY (created_at, id)
) WITHOUT ROWID;
CREATE INDEX listing_by_status ON listing (status, created_at, id);
CREATE INDEX listing_by_user ON listing (user, created_at, id);
CREATE INDEX listing_by_project ON listing (project, created_at, id);
CREATE INDEX listing_by_name ON listing (name, created_at, id);
CREATE INDEX listing_by_updated ON listing (updated_at, created_at, id);

CREATE TABLE events (
    seq     INTEGER PRIMARY KEY,
    job_id  TEXT NOT NULL REFERENCES jobs (id),
    version INTEGER NOT NULL,  -- the version of the job that the event made
    doc     TEXT NOT NULL,
    UNIQUE (job_id, version)
);

CREATE TABLE attempts (
    job_id TEXT NOT NULL REFERENCES jobs (id),
    fence  INTEGER NOT NULL,
    doc    TEXT NOT NULL,  -- as the newest event that tells of it left it
    PRIMARY KEY (job_id, fence)
);

CREATE TABLE outbox (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given out twice: a late `forget` must not hit a new row
    job_id  TEXT NOT NULL,
    version INTEGER NOT NULL,
    doc     TEXT NOT NULL,  -- the job as it was at that version
    FOREIGN KEY (job_id, version) REFERENCES events (job_id, version)
);
CREATE INDEX outbox_by_event ON outbox (job_id, version);

CREATE TABLE notices (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,  -- as in the outbox, and counted for itself
    job_id  TEXT NOT NULL,
    version INTEGER NOT NULL,
    doc     TEXT NOT NULL,
    FOREIGN KEY (job_id, version) REFERENCES events (job_id, version)
);

CREATE TABLE repairs (
    number INTEGER PRIMARY KEY,  -- without gaps: the newest is never deleted
    doc    TEXT NOT NULL
);

CREATE TABLE projects (
    name TEXT PRIMARY KEY NOT NULL,
    doc  TEXT NOT NULL  -- its share; a project without a row has the default
);

CREATE TABLE notes (  -- small values of the policy, by name, that it finds again after a restart
    name TEXT PRIMARY KEY NOT NULL,
    doc  TEXT NOT NULL
);

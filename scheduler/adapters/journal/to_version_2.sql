-- From version 1: who vouched last and who may write, notices of what is news, and repairs.

CREATE TEMPORARY TABLE meta_of_version_1 AS SELECT * FROM meta;
DROP TABLE meta;
CREATE TABLE meta (
    only_row        INTEGER PRIMARY KEY CHECK (only_row = 1),
    opened          INTEGER NOT NULL,  -- how often the file was opened: whose number this is may write
    incarnation     INTEGER NOT NULL,  -- of the life that opened it last; at least one more than that before
    vouched_at      INTEGER,           -- when a scheduler last said that it was alive; microseconds, as below
    refused_commits INTEGER NOT NULL   -- how often the disk failed in the middle of one
);
INSERT INTO meta SELECT only_row, incarnation, incarnation, NULL, refused_commits FROM meta_of_version_1;
DROP TABLE meta_of_version_1;

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

-- From version 3: what lists are filtered and sorted by, beside the documents.
-- `listed_name`, `listed_labels` and `listed_update` are functions of Python's: see listing.py.

DROP INDEX jobs_newest;
DROP INDEX jobs_by_status;
DROP INDEX jobs_by_user;
DROP INDEX jobs_by_project;

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
INSERT INTO listing (created_at, id, updated_at, status, user, project, name, labels)
SELECT created_at, id, listed_update(doc), status, user, project, listed_name(doc), listed_labels(doc)
FROM jobs ORDER BY created_at, id;

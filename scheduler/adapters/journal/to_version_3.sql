-- From version 2: attempts as rows.  Events of earlier releases tell of none, so their runs get no row.

CREATE TABLE attempts (
    job_id TEXT NOT NULL REFERENCES jobs (id),
    fence  INTEGER NOT NULL,
    doc    TEXT NOT NULL,  -- as the newest event that tells of it left it
    PRIMARY KEY (job_id, fence)
);
INSERT INTO attempts (job_id, fence, doc)
SELECT job_id, doc ->> '$.attempt.fence', doc -> '$.attempt' FROM events
WHERE doc ->> '$.attempt' IS NOT NULL ORDER BY seq
ON CONFLICT (job_id, fence) DO UPDATE SET doc = excluded.doc;

-- name: take_incarnation
UPDATE meta SET incarnation = incarnation + 1;

-- name: incarnation
SELECT incarnation FROM meta;

-- name: overwrite_refused
UPDATE meta SET refused_commits = refused_commits + 1;

-- name: version
SELECT version FROM jobs WHERE id = ?;

-- name: put_job
INSERT INTO jobs (id, status, user, project, created_at, version, fence, queue_seq, idempotency_key, doc)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    status = excluded.status, user = excluded.user, project = excluded.project,
    created_at = excluded.created_at, version = excluded.version, fence = excluded.fence,
    queue_seq = excluded.queue_seq, idempotency_key = excluded.idempotency_key, doc = excluded.doc;

-- name: add_event
INSERT INTO events (job_id, version, doc) VALUES (?, ?, ?);

-- name: add_outbox
INSERT INTO outbox (job_id, version, doc) VALUES (?, ?, ?);

-- name: forget
DELETE FROM outbox WHERE seq = ?;

-- name: active
SELECT doc FROM jobs INDEXED BY jobs_active
WHERE status IN ('pending', 'queued', 'running', 'paused') ORDER BY created_at, id;

-- name: job
SELECT doc FROM jobs WHERE id = ?;

-- name: job_by_key
SELECT doc FROM jobs WHERE user = ? AND idempotency_key = ?;

-- name: counts
SELECT status, count(*) FROM jobs GROUP BY status;

-- name: events
SELECT doc FROM events WHERE job_id = ? ORDER BY version;

-- name: outbox
SELECT outbox.seq, outbox.doc, events.doc FROM outbox JOIN events USING (job_id, version)
ORDER BY outbox.seq LIMIT ?;

-- name: outbox_size
SELECT count(*) FROM outbox;

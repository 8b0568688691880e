-- name: take
UPDATE meta SET opened = opened + 1, incarnation = incarnation + 1;

-- name: life
SELECT opened, incarnation, vouched_at FROM meta;

-- name: raise_incarnation
UPDATE meta SET incarnation = max(incarnation, ?);

-- name: vouch
UPDATE meta SET vouched_at = ?;

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

-- name: leave_listing
DELETE FROM listing WHERE id = ?1 AND created_at = (SELECT created_at FROM jobs WHERE id = ?1) AND created_at <> ?2;

-- name: put_listing
INSERT INTO listing (created_at, id, updated_at, status, user, project, name, labels)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (created_at, id) DO UPDATE SET
    updated_at = excluded.updated_at, status = excluded.status, user = excluded.user,
    project = excluded.project, name = excluded.name, labels = excluded.labels;

-- name: add_event
INSERT INTO events (job_id, version, doc) VALUES (?, ?, ?);

-- name: put_attempt
INSERT INTO attempts (job_id, fence, doc) VALUES (?, ?, ?)
ON CONFLICT (job_id, fence) DO UPDATE SET doc = excluded.doc;

-- name: add_outbox
INSERT INTO outbox (job_id, version, doc) VALUES (?, ?, ?);

-- name: add_notice
INSERT INTO notices (job_id, version, doc) VALUES (?, ?, ?);

-- name: add_repair
INSERT INTO repairs (doc) VALUES (?);

-- name: prune_repairs
DELETE FROM repairs WHERE number <= (SELECT max(number) FROM repairs) - ?;

-- name: put_project
INSERT INTO projects (name, doc) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET doc = excluded.doc;

-- name: forget_project
DELETE FROM projects WHERE name = ?;

-- name: put_note
INSERT INTO notes (name, doc) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET doc = excluded.doc;

-- name: forget_note
DELETE FROM notes WHERE name = ?;

-- name: forget
DELETE FROM outbox WHERE seq = ?;

-- name: forget_notice
DELETE FROM notices WHERE seq = ?;

-- name: columns
SELECT status, user, project, created_at, version, fence, queue_seq, idempotency_key FROM jobs WHERE id = ?;

-- name: active
SELECT id, doc FROM jobs INDEXED BY jobs_active
WHERE status IN ('pending', 'queued', 'running', 'paused') ORDER BY created_at, id;

-- name: job
SELECT id, doc FROM jobs WHERE id = ?;

-- name: job_by_key
SELECT id, doc FROM jobs WHERE user = ? AND idempotency_key = ?;

-- name: events
SELECT job_id, version, doc FROM events WHERE job_id = ? ORDER BY version;

-- name: submitted
SELECT listing.created_at, jobs.id, jobs.doc FROM listing JOIN jobs USING (id)
WHERE (listing.created_at, listing.id) > (?1, ?2) AND listing.created_at <= ?3
ORDER BY listing.created_at, listing.id LIMIT ?4;

-- name: attempts
SELECT job_id, fence, doc FROM attempts WHERE job_id = ? ORDER BY fence;

-- name: outbox
SELECT outbox.seq, job_id, version, outbox.doc, events.doc FROM outbox JOIN events USING (job_id, version)
WHERE outbox.seq > ? ORDER BY outbox.seq LIMIT ?;

-- name: outbox_size
SELECT count(*) FROM outbox;

-- name: unsent
SELECT DISTINCT job_id FROM outbox;

-- name: unsent_among
SELECT DISTINCT job_id FROM outbox WHERE job_id IN (SELECT value FROM json_each(?));

-- name: notices
SELECT notices.seq, job_id, version, notices.doc, events.doc FROM notices JOIN events USING (job_id, version)
WHERE notices.seq > ? ORDER BY notices.seq LIMIT ?;

-- name: repairs
SELECT number, doc FROM repairs WHERE number < ? ORDER BY number DESC LIMIT ?;

-- name: projects
SELECT name, doc FROM projects ORDER BY name;

-- name: note
SELECT doc FROM notes WHERE name = ?;

-- name: notes
SELECT name, doc FROM notes WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name;

-- name: ended
SELECT updated_at, id FROM listing INDEXED BY listing_by_updated
WHERE updated_at < ?1 AND status IN ('completed', 'failed', 'cancelled')
    AND (updated_at, created_at, id) > (?2, coalesce((SELECT created_at FROM jobs WHERE id = ?3), 0), ?3)
ORDER BY updated_at, created_at, id LIMIT ?4;

-- name: is_unsent
SELECT EXISTS (SELECT 1 FROM outbox WHERE job_id = ?1) OR EXISTS (SELECT 1 FROM notices WHERE job_id = ?1);

-- name: prune_events
DELETE FROM events WHERE job_id = ?1 AND version < (SELECT version FROM jobs WHERE id = ?1);

-- name: held_jobs
SELECT updated_at, id FROM listing INDEXED BY listing_by_updated
WHERE created_at < ?1
    AND (updated_at, created_at, id) > (?2, coalesce((SELECT created_at FROM jobs WHERE id = ?3), 0), ?3)
ORDER BY updated_at, created_at, id LIMIT ?4;

-- name: held_open_jobs
SELECT jobs.id FROM jobs INDEXED BY jobs_active CROSS JOIN listing USING (created_at, id)
WHERE jobs.status IN ('pending', 'queued', 'running', 'paused')
    AND jobs.fence > 0 AND listing.updated_at < ?1 AND jobs.created_at < ?2;

-- name: held_runs
SELECT jobs.id, jobs.project, jobs.user,
    CASE WHEN json_valid(jobs.doc) THEN json_extract(jobs.doc, '$.spec.resources') END,
    attempts.fence, jobs.status = 'running' AND jobs.fence = attempts.fence,
    CASE WHEN json_valid(attempts.doc) THEN json_remove(attempts.doc, '$.evidence') END
FROM json_each(?1) AS wanted CROSS JOIN jobs ON jobs.id = wanted.value
    CROSS JOIN attempts ON attempts.job_id = jobs.id;

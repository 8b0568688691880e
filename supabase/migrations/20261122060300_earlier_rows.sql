-- Rows that earlier systems left behind (version 0: no scheduler of ours ever wrote them).  A row that claims to be
-- active and that nobody touched for 10 minutes is failed as stale; a status that is none of the seven becomes the one
-- that means the same, else failed.  Every move is in the history.  Run again, it finds nothing.

with judged as (
    select
        id,
        status as was,
        updated_at as touched_at,
        status in ('pending', 'queued', 'running') as is_stale,
        coalesce(
            (
                select becomes from (values
                    ('canceled', 'cancelled'), ('done', 'completed'), ('success', 'completed'),
                    ('succeeded', 'completed')
                ) as known (word, becomes)
                where word = status
            ),
            'failed'
        ) as becomes
    from public.training_jobs
    where version = 0 and (
        status not in ('pending', 'queued', 'running', 'paused', 'completed', 'failed', 'cancelled')
        or (status in ('pending', 'queued', 'running') and updated_at <= now() - interval '10 minutes')
    )
    for update
),

moved as (
    update public.training_jobs as present set
        status = judged.becomes,
        finished_at = coalesce(present.finished_at, now()),
        queue_position = null,
        reason = jsonb_build_object(
            'code', case when judged.is_stale then 'stale' else 'earlier_status' end,
            'message', case
                when judged.is_stale then format(
                    'an earlier system left it %s, and nobody has touched it since %s UTC; start it again if it is '
                    'still wanted', judged.was, to_char(judged.touched_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI')
                )
                else format('an earlier system called it "%s"', judged.was)
            end,
            'detail', present.reason #>> '{}'
        )
    from judged
    where present.id = judged.id
    returning present.id, judged.was, present.status, present.reason, present.cluster
)

insert into public.training_job_events (job_id, version, kind, at, by, from_status, to_status, reason, cluster)
select id, 0, 'CleanedUp', now(), 'migration', was, status, reason, cluster from moved
on conflict (job_id, version) do nothing;

-- Now every row keeps to the seven, and so does whoever writes next.
alter table public.training_jobs
    drop constraint if exists training_jobs_status_is_known,
    drop constraint if exists training_jobs_request_is_known,
    drop constraint if exists training_jobs_spec_is_object;
alter table public.training_jobs
    add constraint training_jobs_status_is_known
        check (status in ('pending', 'queued', 'running', 'paused', 'completed', 'failed', 'cancelled')),
    add constraint training_jobs_request_is_known
        check (requested_action in ('cancel', 'pause', 'resume', 'force_start')),
    add constraint training_jobs_spec_is_object check (jsonb_typeof(spec) = 'object');

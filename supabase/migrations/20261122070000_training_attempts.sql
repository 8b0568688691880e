-- Attempts: a row for each run of a job, from its start to its end.  Runs that ended before this was applied have
-- none: the database never knew their nodes.  Safe to repeat.

-- Front ends may ask for more.
alter table public.training_jobs drop constraint if exists training_jobs_request_is_known;
alter table public.training_jobs
    add constraint training_jobs_request_is_known
        check (requested_action in ('cancel', 'pause', 'resume', 'restart', 'preempt', 'force_start'));

-- No foreign key to training_jobs: history outlives a row that somebody deletes.
create table if not exists public.training_attempts (
    job_id uuid not null,
    attempt integer not null,
    cluster text not null,
    version bigint not null,
    nodes jsonb not null,
    started_at timestamptz not null,
    ended_at timestamptz,
    ending text,
    cause text,
    reason jsonb,
    resumed jsonb,
    last_step numeric,
    saved jsonb,
    steps_lost numeric,
    evidence jsonb,
    primary key (job_id, attempt)
);
comment on column public.training_attempts.version is 'Of the job, when the row was written; a newer one wins.';
comment on column public.training_attempts.nodes is
    '[[node, number of ranks on it], ...] in the order of the ranks; rank 0 is on the first.';
comment on column public.training_attempts.ended_at is 'Null while it runs.';
comment on column public.training_attempts.reason is 'Why it ended: code, message, detail.';
comment on column public.training_attempts.resumed is
    'The checkpoint from which it went on, what was checked, and what differed; null: it began at the beginning.';
comment on column public.training_attempts.last_step is 'A loop may count beyond 64 bits.';
comment on column public.training_attempts.saved is 'The newest checkpoint that it completed.';
comment on column public.training_attempts.steps_lost is
    'Steps done that no checkpoint holds; null where the loop does not count steps.';
comment on column public.training_attempts.evidence is 'What was seen at its end: stacks, last lines of the logs.';

revoke all on public.training_attempts from public, anon, authenticated;
grant select, insert, update, delete on public.training_attempts to service_role;
grant select on public.training_attempts to authenticated;
alter table public.training_attempts enable row level security;

drop policy if exists "users see the attempts of their own jobs" on public.training_attempts;
create policy "users see the attempts of their own jobs" on public.training_attempts
    for select to authenticated using (
        exists (
            select from public.training_jobs
            where training_jobs.id = training_attempts.job_id and training_jobs.user_id = (select auth.uid())
        )
    );

-- What follows replaces functions of the same name and keeps who may call them.

create or replace function public.scheduler_check() returns json
language sql stable security invoker set search_path = '' as $$
    select json_build_object('schema_version', 2, 'role', current_user)
$$;

-- p_changes: [{"job": {...}, "queue_position": 1}], each job once.  p_events: the events of these jobs;
-- one that begins or ends an attempt has it as `attempt`.
-- A row that has a newer version keeps it unless p_forced; a row of another cluster is left alone with its events.
create or replace function public.scheduler_apply(
    p_cluster text, p_incarnation bigint, p_changes text, p_events text, p_forced boolean default false
) returns json
language plpgsql security invoker set search_path = '' as $$
declare
    num_rows integer;
begin
    perform public.scheduler_guard(p_cluster, p_incarnation);
    insert into public.training_jobs as present (
        id, name, status, spec, reason, progress, attempt, priority, queue_position, cluster, version, verified_at,
        created_at, queued_at, started_at, finished_at, incarnation, job
    )
    select
        new.id, new.spec ->> 'name', new.status, coalesce(new.raw_spec, new.spec), new.reason,
        case when new.status <> 'running' then new.progress end, new.fence, (new.spec ->> 'priority')::integer,
        change.queue_position, p_cluster, new.version, new.updated_at, new.created_at, new.queued_at,
        new.started_at, new.finished_at, p_incarnation, change.job
    from
        json_to_recordset(p_changes::json) as change (job jsonb, queue_position integer),
        jsonb_to_record(change.job) as new (
            id uuid, spec jsonb, raw_spec jsonb, status text, reason jsonb, progress jsonb, fence integer,
            version bigint, created_at timestamptz, queued_at timestamptz, started_at timestamptz,
            finished_at timestamptz, updated_at timestamptz
        )
    order by new.id -- two calls that cross lock rows in one order
    on conflict (id) do update set
        name = excluded.name,
        status = excluded.status,
        spec = excluded.spec,
        reason = excluded.reason,
        -- What a run says comes with its signs; what the attempt before it said is no word of this one.
        progress = case
            when excluded.status <> 'running' then excluded.progress
            when present.status = 'running' and present.attempt = excluded.attempt then present.progress
        end,
        attempt = excluded.attempt,
        priority = excluded.priority,
        queue_position = excluded.queue_position,
        version = excluded.version,
        verified_at = excluded.verified_at,
        created_at = excluded.created_at,
        queued_at = excluded.queued_at,
        started_at = excluded.started_at,
        finished_at = excluded.finished_at,
        incarnation = excluded.incarnation,
        job = excluded.job
    where present.cluster = excluded.cluster and (present.version <= excluded.version or p_forced);
    get diagnostics num_rows = row_count;

    with told as materialized (
        select event.*
        from json_to_recordset(p_events::json) as event (
            job_id uuid, version bigint, kind text, at timestamptz, by text, from_status text, to_status text,
            reason jsonb, attempt jsonb
        )
        where exists (
            select from public.training_jobs where training_jobs.id = event.job_id and cluster = p_cluster
        )
    ),
    history as (
        insert into public.training_job_events (
            job_id, version, kind, at, by, from_status, to_status, reason, cluster
        )
        select job_id, version, kind, at, by, from_status, to_status, reason, p_cluster
        from told
        order by job_id, version
        on conflict (job_id, version) do nothing
    )
    insert into public.training_attempts as present (
        job_id, attempt, cluster, version, nodes, started_at, ended_at, ending, cause, reason, resumed, last_step,
        saved, steps_lost, evidence
    )
    select distinct on (told.job_id, run.fence)
        told.job_id, run.fence, p_cluster, told.version, run.allocation -> 'ranks', run.started_at, run.ended_at,
        run.ending, run.cause, run.reason, run.resumed, run.last_step, run.saved, run.steps_lost, run.evidence
    from
        told,
        jsonb_to_record(told.attempt) as run (
            fence integer, allocation jsonb, started_at timestamptz, ended_at timestamptz, ending text, cause text,
            reason jsonb, resumed jsonb, last_step numeric, saved jsonb, steps_lost numeric, evidence jsonb
        )
    where told.attempt is not null
    order by told.job_id, run.fence, told.version desc
    on conflict (job_id, attempt) do update set
        version = excluded.version,
        nodes = excluded.nodes,
        started_at = excluded.started_at,
        ended_at = excluded.ended_at,
        ending = excluded.ending,
        cause = excluded.cause,
        reason = excluded.reason,
        resumed = excluded.resumed,
        last_step = excluded.last_step,
        saved = excluded.saved,
        steps_lost = excluded.steps_lost,
        evidence = excluded.evidence
    where present.version <= excluded.version or p_forced;
    return json_build_object('rows', num_rows);
end $$;

-- Full rows in the order of p_ids.  JSON columns come as text: one that a reader cannot parse spoils no other.
create or replace function public.scheduler_rows(p_cluster text, p_ids uuid[], p_with_job boolean default true)
returns json
language sql stable security invoker set search_path = '' as $$
    select json_build_object(
        'rows', coalesce(
            json_agg(
                json_build_object(
                    'id', found.id, 'status', found.status, 'version', found.version, 'name', found.name,
                    'spec', found.spec::text, 'job', case when p_with_job then found.job::text end,
                    'attempts', case when p_with_job then (
                        select json_agg(run order by run.attempt)::text
                        from public.training_attempts as run
                        where run.job_id = found.id
                    ) end,
                    'user_id', found.user_id, 'requested_action', found.requested_action,
                    'reason', found.reason::text, 'progress', found.progress::text, 'attempt', found.attempt,
                    'queue_position', found.queue_position, 'created_at', found.created_at,
                    'queued_at', found.queued_at, 'started_at', found.started_at,
                    'finished_at', found.finished_at, 'updated_at', found.updated_at,
                    'verified_at', found.verified_at
                ) order by wanted.place
            ),
            '[]'
        ),
        'read_at', clock_timestamp(),
        'vouched_at', (select vouched_at from public.scheduler_incarnations where cluster = p_cluster)
    )
    from unnest(p_ids) with ordinality as wanted (id, place)
    join public.training_jobs as found on found.id = wanted.id and found.cluster = p_cluster
$$;

do $$
begin
    if exists (select from pg_publication where pubname = 'supabase_realtime' and not puballtables)
        and not exists (
            select from pg_publication_tables
            where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = 'training_attempts'
        )
    then
        alter publication supabase_realtime add table public.training_attempts;
    end if;
end $$;

notify pgrst, 'reload schema';

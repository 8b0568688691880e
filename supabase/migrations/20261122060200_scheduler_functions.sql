-- What a scheduler calls: each is one transaction, safe to repeat, and for service_role alone.  Each answers with a
-- JSON object, so that a caller can tell the answer of the database from that of anything else on the way.
-- Documents come as text: `job` as the scheduler writes it, from which the columns are derived here.

create or replace function public.scheduler_check() returns json
language sql stable security invoker set search_path = '' as $$
    select json_build_object('schema_version', 1, 'role', current_user)
$$;

create or replace function public.scheduler_claim(p_cluster text, p_at_least bigint) returns json
language sql security invoker set search_path = '' as $$
    insert into public.scheduler_incarnations as known (cluster, incarnation)
    values (p_cluster, greatest(1, p_at_least))
    on conflict (cluster) do update
        set incarnation = greatest(known.incarnation + 1, excluded.incarnation), claimed_at = now()
    returning json_build_object('incarnation', known.incarnation)
$$;

-- Holds the cluster for p_incarnation until the transaction ends: a claim waits for it, or is seen here.
-- A number that the table does not know yet (it was restored from a backup) is the newest, and is written down.
create or replace function public.scheduler_guard(p_cluster text, p_incarnation bigint) returns void
language plpgsql security invoker set search_path = '' as $$
declare
    newest bigint;
begin
    select incarnation into newest from public.scheduler_incarnations where cluster = p_cluster for share;
    if newest is null or newest < p_incarnation then
        insert into public.scheduler_incarnations as known (cluster, incarnation) values (p_cluster, p_incarnation)
        on conflict (cluster) do update set incarnation = greatest(known.incarnation, excluded.incarnation)
        returning known.incarnation into newest;
    end if;
    if newest > p_incarnation then
        raise sqlstate 'PT409' using message = format(
            'cluster %s belongs to incarnation %s; incarnation %s may not write any more',
            p_cluster, newest, p_incarnation
        );
    end if;
end $$;

-- p_changes: [{"job": {...}, "queue_position": 1}], each job once.  p_events: the events of these jobs.
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

    insert into public.training_job_events (
        job_id, version, kind, at, by, from_status, to_status, reason, cluster
    )
    select event.job_id, event.version, kind, at, by, from_status, to_status, event.reason, p_cluster
    from json_to_recordset(p_events::json) as event (
        job_id uuid, version bigint, kind text, at timestamptz, by text, from_status text, to_status text,
        reason jsonb
    )
    where exists (
        select from public.training_jobs where training_jobs.id = event.job_id and cluster = p_cluster
    )
    order by event.job_id, event.version
    on conflict (job_id, version) do nothing;
    return json_build_object('rows', num_rows);
end $$;

-- p_signs: [{"job_id", "version", "reason", "progress", "queue_position", "verified_at"}].  A sign counts only while
-- the row has its version.
create or replace function public.scheduler_vouch(p_cluster text, p_incarnation bigint, p_signs text) returns json
language plpgsql security invoker set search_path = '' as $$
declare
    num_rows integer;
begin
    -- Written before it is guarded: two calls that shared the row first could not both go on to write it.
    insert into public.scheduler_incarnations as known (cluster, incarnation, vouched_at)
    values (p_cluster, p_incarnation, clock_timestamp())
    on conflict (cluster) do update set incarnation = excluded.incarnation, vouched_at = excluded.vouched_at
        where known.incarnation <= excluded.incarnation;
    perform public.scheduler_guard(p_cluster, p_incarnation);
    update public.training_jobs as present set
        reason = sign.reason,
        progress = sign.progress,
        queue_position = sign.queue_position,
        verified_at = sign.verified_at
    from json_to_recordset(p_signs::json) as sign (
        job_id uuid, version bigint, reason jsonb, progress jsonb, queue_position integer, verified_at timestamptz
    )
    where present.id = sign.job_id and present.version = sign.version and present.cluster = p_cluster;
    get diagnostics num_rows = row_count;
    return json_build_object('rows', num_rows);
end $$;

create or replace function public.scheduler_answer(
    p_cluster text, p_incarnation bigint, p_job_id uuid, p_action text, p_refusal text
) returns json
language plpgsql security invoker set search_path = '' as $$
declare
    num_rows integer;
begin
    perform public.scheduler_guard(p_cluster, p_incarnation);
    update public.training_jobs set requested_action = null, request_error = p_refusal
    where id = p_job_id and cluster = p_cluster and requested_action = p_action;
    get diagnostics num_rows = row_count;
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

-- The two bounds stand in for "from the start", so that an index serves the first page and every other.
create or replace function public.scheduler_inbox(
    p_cluster text, p_after_at timestamptz, p_after_id uuid, p_limit integer
) returns json
language sql stable security invoker set search_path = '' as $$
    select public.scheduler_rows(p_cluster, array(
        select id from public.training_jobs
        where cluster = p_cluster
            and ((status = 'pending' and version = 0) or requested_action is not null)
            and (updated_at, id) > (
                coalesce(p_after_at, '-infinity'), coalesce(p_after_id, '00000000-0000-0000-0000-000000000000')
            )
        order by updated_at, id
        limit p_limit
    ))
$$;

create or replace function public.scheduler_page(
    p_cluster text, p_statuses text[], p_user text, p_project text, p_after_at timestamptz, p_after_id uuid,
    p_limit integer
) returns json
language sql stable security invoker set search_path = '' as $$
    select public.scheduler_rows(p_cluster, p_with_job => false, p_ids => array(
        select id from public.training_jobs
        where cluster = p_cluster
            and (created_at, id) < (
                coalesce(p_after_at, 'infinity'), coalesce(p_after_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
            )
            and (p_statuses is null or status = any (p_statuses))
            and (p_user is null or coalesce(job -> 'spec' ->> 'user', spec ->> 'user', '') = p_user)
            and (p_project is null or coalesce(job -> 'spec' ->> 'project', spec ->> 'project', '') = p_project)
        order by created_at desc, id desc
        limit p_limit
    ))
$$;

-- [[id, status, version], ...] by id.
create or replace function public.scheduler_active(p_cluster text, p_after_id uuid, p_limit integer) returns json
language sql stable security invoker set search_path = '' as $$
    select json_build_object('stubs', coalesce(json_agg(json_build_array(id, status, version) order by id), '[]'))
    from (
        select id, status, version from public.training_jobs
        where cluster = p_cluster and status in ('pending', 'queued', 'running', 'paused')
            and id >= coalesce(p_after_id, '00000000-0000-0000-0000-000000000000')
            and id is distinct from p_after_id
        order by id
        limit p_limit
    ) as page
$$;

do $$
declare
    callable regprocedure;
begin
    for callable in
        select oid::regprocedure from pg_proc
        where pronamespace = 'public'::regnamespace and proname in (
            'scheduler_check', 'scheduler_claim', 'scheduler_guard', 'scheduler_apply', 'scheduler_vouch',
            'scheduler_answer', 'scheduler_rows', 'scheduler_inbox', 'scheduler_page', 'scheduler_active'
        )
    loop
        execute format('revoke all on function %s from public, anon, authenticated', callable);
        execute format('grant execute on function %s to service_role', callable);
    end loop;
end $$;

notify pgrst, 'reload schema';

-- Upkeep: finished rows that somebody wrote by hand are found, and old history is pruned.  Safe to repeat.

-- Which finished rows say something else than the scheduler's own copy in them: nearly always none, so that the index
-- is empty and costs a look.  No cast: whatever a hand put there, no write may fail because of it.
create index if not exists training_jobs_altered on public.training_jobs (cluster, id)
    where status in ('completed', 'failed', 'cancelled') and job is not null
        and (status is distinct from job ->> 'status' or version::text is distinct from job ->> 'version');
create index if not exists training_jobs_ended on public.training_jobs (cluster, finished_at, id)
    where status in ('completed', 'failed', 'cancelled');

create or replace function public.scheduler_check() returns json
language sql stable security invoker set search_path = '' as $$
    select json_build_object('schema_version', 3, 'role', current_user)
$$;

-- [[id, status, version], ...] by id: active rows, and finished ones that are not as a scheduler wrote them.
create or replace function public.scheduler_active(p_cluster text, p_after_id uuid, p_limit integer) returns json
language sql stable security invoker set search_path = '' as $$
    select json_build_object('stubs', coalesce(json_agg(json_build_array(id, status, version) order by id), '[]'))
    from (
        (
            select id, status, version from public.training_jobs
            where cluster = p_cluster and status in ('pending', 'queued', 'running', 'paused')
                and id >= coalesce(p_after_id, '00000000-0000-0000-0000-000000000000')
                and id is distinct from p_after_id
            order by id
            limit p_limit
        )
        union all
        (
            select id, status, version from public.training_jobs
            where cluster = p_cluster and status in ('completed', 'failed', 'cancelled') and job is not null
                and (status is distinct from job ->> 'status' or version::text is distinct from job ->> 'version')
                and id >= coalesce(p_after_id, '00000000-0000-0000-0000-000000000000')
                and id is distinct from p_after_id
            order by id
            limit p_limit
        )
        order by id
        limit p_limit
    ) as page
$$;

-- Of at most p_limit jobs that ended before p_before, in the order of their end after (p_after_at, p_after_id): all
-- lines of their history but the last, and what was seen at the end of their runs.  The jobs and their attempts stay.
-- `after` is where the next call goes on; null when there is nothing older.
create or replace function public.scheduler_prune(
    p_cluster text, p_incarnation bigint, p_before timestamptz, p_after_at timestamptz, p_after_id uuid,
    p_limit integer
) returns json
language plpgsql security invoker set search_path = '' as $$
declare
    ended uuid[];
    last_at timestamptz;
    num_events integer;
    num_evidence integer;
begin
    perform public.scheduler_guard(p_cluster, p_incarnation);
    select array_agg(id order by finished_at, id), max(finished_at) into ended, last_at
    from (
        select id, finished_at from public.training_jobs
        where cluster = p_cluster and status in ('completed', 'failed', 'cancelled') and finished_at < p_before
            and (finished_at, id) > (
                coalesce(p_after_at, '-infinity'), coalesce(p_after_id, '00000000-0000-0000-0000-000000000000')
            )
        order by finished_at, id
        limit p_limit
    ) as page;
    delete from public.training_job_events as line using public.training_jobs as job
    where line.job_id = any (ended) and job.id = line.job_id and line.version < job.version;
    get diagnostics num_events = row_count;
    update public.training_attempts set evidence = null where job_id = any (ended) and evidence is not null;
    get diagnostics num_evidence = row_count;
    return json_build_object(
        'events', num_events,
        'evidence', num_evidence,
        'after', case when cardinality(ended) = p_limit then json_build_array(last_at, ended[p_limit]) end
    );
end $$;

revoke all on function public.scheduler_prune(text, bigint, timestamptz, timestamptz, uuid, integer)
    from public, anon, authenticated;
grant execute on function public.scheduler_prune(text, bigint, timestamptz, timestamptz, uuid, integer)
    to service_role;

notify pgrst, 'reload schema';

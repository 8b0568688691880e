-- Who may do what.  A project grants everything on new tables and functions to every key, so all of it is taken back
-- first.  A user's key sees that user's jobs, may insert pending ones, and may ask; it never writes a state.

revoke all on public.training_jobs, public.training_job_events, public.scheduler_incarnations
    from public, anon, authenticated;
revoke all on function public.training_jobs_touch() from public, anon, authenticated;
grant select, insert, update, delete
    on public.training_jobs, public.training_job_events, public.scheduler_incarnations to service_role;

alter table public.training_jobs enable row level security;
alter table public.training_job_events enable row level security;
alter table public.scheduler_incarnations enable row level security;

grant select on public.training_jobs, public.training_job_events to authenticated;
grant insert (id, user_id, name, spec, cluster, status) on public.training_jobs to authenticated;
grant update (requested_action) on public.training_jobs to authenticated;

-- `(select auth.uid())` is evaluated once for a statement, not once for a row.
drop policy if exists "users see their own jobs" on public.training_jobs;
create policy "users see their own jobs" on public.training_jobs
    for select to authenticated using (user_id = (select auth.uid()));

drop policy if exists "users hand in pending jobs of their own" on public.training_jobs;
create policy "users hand in pending jobs of their own" on public.training_jobs
    for insert to authenticated with check (
        user_id = (select auth.uid())
        and status = 'pending'
        and version = 0
        and length(name) <= 200
        and length(cluster) <= 40
        and coalesce(octet_length(spec::text), 0) <= 1000000
    );

-- The grant above leaves them one column to change.
drop policy if exists "users ask about their own jobs" on public.training_jobs;
create policy "users ask about their own jobs" on public.training_jobs
    for update to authenticated using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));

drop policy if exists "users see the history of their own jobs" on public.training_job_events;
create policy "users see the history of their own jobs" on public.training_job_events
    for select to authenticated using (
        exists (
            select from public.training_jobs
            where training_jobs.id = training_job_events.job_id and training_jobs.user_id = (select auth.uid())
        )
    );

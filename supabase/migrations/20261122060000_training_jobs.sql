-- Jobs, their history, and which scheduler may write.  Front ends insert {name, spec} into training_jobs and read
-- the rest; only a scheduler writes states.  Safe to repeat.

-- A table of that name may be there from an earlier system (it has no column `incarnation`).  Its rows and triggers
-- stay.  What would refuse our rows or open them to others goes.  A column of another type is converted; one that cannot
-- be, or that means something else here, is kept with `earlier_` before its name.
do $$
declare
    jobs constant regclass := to_regclass('public.training_jobs');
    item record;
begin
    if jobs is null or exists (select from pg_attribute where attrelid = jobs and attname = 'incarnation') then
        return;
    end if;
    for item in select polname from pg_policy where polrelid = jobs loop
        execute format('drop policy %I on public.training_jobs', item.polname);
    end loop;
    for item in select conname from pg_constraint where conrelid = jobs and contype = 'c' loop
        execute format('alter table public.training_jobs drop constraint %I', item.conname);
    end loop;
    for item in
        select column_name from information_schema.columns
        where table_schema = 'public' and table_name = 'training_jobs' and column_name <> 'id'
            and is_nullable = 'NO' and is_identity = 'NO'
    loop
        execute format('alter table public.training_jobs alter column %I drop not null', item.column_name);
    end loop;
    for item in
        select attname from pg_attribute
        where attrelid = jobs and not attisdropped and attname in ('version', 'requested_action', 'job')
    loop
        execute format(
            'alter table public.training_jobs rename column %I to %I', item.attname, 'earlier_' || item.attname
        );
    end loop;
    for item in
        select attname, wanted.type
        from pg_attribute
        join (values
            ('id', 'uuid'), ('user_id', 'uuid'), ('name', 'text'), ('status', 'text'), ('spec', 'jsonb'),
            ('reason', 'jsonb'), ('progress', 'jsonb'), ('attempt', 'integer'), ('priority', 'integer'),
            ('queue_position', 'integer'), ('cluster', 'text'), ('request_error', 'text'),
            ('requested_at', 'timestamp with time zone'), ('verified_at', 'timestamp with time zone'),
            ('created_at', 'timestamp with time zone'), ('queued_at', 'timestamp with time zone'),
            ('started_at', 'timestamp with time zone'), ('finished_at', 'timestamp with time zone'),
            ('updated_at', 'timestamp with time zone')
        ) as wanted (name, type) on wanted.name = attname
        where attrelid = jobs and not attisdropped and format_type(atttypid, null) <> wanted.type
    loop
        begin
            execute format('alter table public.training_jobs alter column %I drop default', item.attname);
            execute format(
                'alter table public.training_jobs alter column %1$I type %2$s using %1$I::%2$s',
                item.attname, item.type
            );
        exception when others then
            if item.attname = 'id' then
                raise exception 'training_jobs.id of the earlier system cannot become uuid: %', sqlerrm
                using hint = 'Rename that table, for instance to earlier_training_jobs, and run this again.';
            end if;
            execute format(
                'alter table public.training_jobs rename column %I to %I', item.attname, 'earlier_' || item.attname
            );
        end;
    end loop;
end $$;

create table if not exists public.training_jobs (id uuid primary key);

alter table public.training_jobs
    add column if not exists user_id uuid,
    add column if not exists name text,
    add column if not exists status text,
    add column if not exists spec jsonb,
    add column if not exists reason jsonb,
    add column if not exists progress jsonb,
    add column if not exists attempt integer,
    add column if not exists priority integer,
    add column if not exists queue_position integer,
    add column if not exists cluster text,
    add column if not exists version bigint,
    add column if not exists verified_at timestamptz,
    add column if not exists created_at timestamptz,
    add column if not exists queued_at timestamptz,
    add column if not exists started_at timestamptz,
    add column if not exists finished_at timestamptz,
    add column if not exists updated_at timestamptz,
    add column if not exists requested_action text,
    add column if not exists requested_at timestamptz,
    add column if not exists request_error text,
    add column if not exists incarnation bigint,
    add column if not exists job jsonb;

-- Earlier rows get what is missing.  Their own triggers are off meanwhile: one that sets updated_at would make rows
-- look alive that nobody has touched for months.
do $$
declare
    triggers constant name[] := array(
        select tgname from pg_trigger
        where tgrelid = 'public.training_jobs'::regclass and not tgisinternal and tgenabled <> 'D'
    );
    trigger_name name;
begin
    foreach trigger_name in array triggers loop
        execute format('alter table public.training_jobs disable trigger %I', trigger_name);
    end loop;
    update public.training_jobs set
        name = coalesce(nullif(name, ''), 'job'),
        status = coalesce(lower(btrim(status)), ''),
        spec = case when jsonb_typeof(spec) <> 'object' then jsonb_build_object('spec', spec) else spec end,
        attempt = coalesce(attempt, 0),
        priority = coalesce(priority, 0),
        cluster = coalesce(cluster, 'default'),
        version = 0,
        created_at = coalesce(created_at, queued_at, started_at, updated_at, finished_at, 'epoch'),
        updated_at = coalesce(updated_at, finished_at, started_at, queued_at, created_at, 'epoch')
    where version is null;
    foreach trigger_name in array triggers loop
        execute format('alter table public.training_jobs enable trigger %I', trigger_name);
    end loop;
    if not exists (
        select from pg_index join pg_attribute on attrelid = indrelid and attname = 'id'
        where indrelid = 'public.training_jobs'::regclass and indisunique and indkey::text = attnum::text
            and indpred is null
    ) then
        alter table public.training_jobs add unique (id);
    end if;
end $$;

alter table public.training_jobs
    alter column id set default gen_random_uuid(),
    alter column user_id set default auth.uid(),
    alter column name set default 'job',
    alter column name set not null,
    alter column status set default 'pending',
    alter column status set not null,
    alter column attempt set default 0,
    alter column attempt set not null,
    alter column priority set default 0,
    alter column priority set not null,
    alter column cluster set default 'default',
    alter column cluster set not null,
    alter column version set default 0,
    alter column version set not null,
    alter column created_at set default now(),
    alter column created_at set not null,
    alter column updated_at set default now(),
    alter column updated_at set not null;

comment on column public.training_jobs.version is 'Grows with each change; 0 until a scheduler has written the row.';
comment on column public.training_jobs.verified_at is 'When the state was last compared with reality.';
comment on column public.training_jobs.requested_action is 'What a front end asks for; null again once it was taken.';
comment on column public.training_jobs.request_error is 'Why the last request was refused, in words.';
comment on column public.training_jobs.job is 'The scheduler''s own copy, from which a lost journal is rebuilt.';

create index if not exists training_jobs_active on public.training_jobs (cluster, id)
    where status in ('pending', 'queued', 'running', 'paused');
create index if not exists training_jobs_inbox on public.training_jobs (cluster, updated_at, id)
    where (status = 'pending' and version = 0) or requested_action is not null;
create index if not exists training_jobs_newest on public.training_jobs (cluster, created_at desc, id desc);
create index if not exists training_jobs_of_user on public.training_jobs (user_id, created_at desc, id desc);

-- No foreign key to training_jobs: history outlives a row that somebody deletes.
create table if not exists public.training_job_events (
    job_id uuid not null,
    version bigint not null,
    kind text not null,
    at timestamptz not null,
    by text not null,
    from_status text,
    to_status text not null,
    reason jsonb,
    cluster text not null,
    primary key (job_id, version)
);

create table if not exists public.scheduler_incarnations (
    cluster text primary key,
    incarnation bigint not null,
    claimed_at timestamptz not null default now(),
    vouched_at timestamptz
);
comment on table public.scheduler_incarnations is
    'The newest scheduler of each cluster, and when it last said that it is alive; older ones may not write.';

-- Ages are told by one clock, whoever writes.
create or replace function public.training_jobs_touch() returns trigger
language plpgsql security invoker set search_path = '' as $$
begin
    new.updated_at := clock_timestamp();
    if new.requested_action is distinct from old.requested_action then
        new.requested_at := case when new.requested_action is not null then new.updated_at end;
        new.request_error := case when new.requested_action is null then new.request_error end;
    end if;
    return new;
end $$;

drop trigger if exists training_jobs_touch on public.training_jobs;
create trigger training_jobs_touch before update on public.training_jobs
    for each row execute function public.training_jobs_touch();

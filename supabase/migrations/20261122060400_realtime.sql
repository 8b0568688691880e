-- Front ends that listen hear of every change of the rows they may see.  A project without Realtime has no publication.
do $$
declare
    followed text;
begin
    foreach followed in array array['training_jobs', 'training_job_events'] loop
        if exists (select from pg_publication where pubname = 'supabase_realtime' and not puballtables)
            and not exists (
                select from pg_publication_tables
                where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = followed
            )
        then
            execute format('alter publication supabase_realtime add table public.%I', followed);
        end if;
    end loop;
end $$;

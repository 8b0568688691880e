-- A front end that serializes what the client library serializes again writes its spec as one JSON string.  It means the
-- object in that string, and gets it; what is none is refused with the reason, not by the name of a constraint.
create or replace function public.training_jobs_unwrap_spec() returns trigger
language plpgsql security invoker set search_path = '' as $$
begin
    for attempt in 1..3 loop
        exit when jsonb_typeof(new.spec) is distinct from 'string' or octet_length(new.spec::text) > 1000000;
        new.spec := (new.spec #>> '{}')::jsonb;
    end loop;
    return new;
exception when invalid_text_representation or untranslatable_character then
    raise exception 'spec is a text that is no JSON (%); write the spec as a JSON object', sqlerrm
        using errcode = 'check_violation';
end $$;

revoke execute on function public.training_jobs_unwrap_spec() from public, anon, authenticated;

create or replace trigger training_jobs_unwrap_spec before insert or update of spec on public.training_jobs
    for each row execute function public.training_jobs_unwrap_spec();

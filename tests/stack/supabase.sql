-- What a Supabase project holds before its first migration: roles, schemas, default grants, `auth`.
-- Run once as the superuser `supabase_admin`.  As in a project, `postgres` (who runs migrations) is no superuser.

create role postgres login createdb createrole replication bypassrls;
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit;
grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to postgres;

-- The limits of a hosted project.  `service_role` has none of its own and gets the login role's.
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';

alter database postgres owner to postgres;
create schema extensions authorization postgres;
grant usage on schema extensions to anon, authenticated, service_role;
alter database postgres set search_path = "$user", public, extensions;
create publication supabase_realtime;
alter publication supabase_realtime owner to postgres;

-- As generous as the real ones: whatever a migration creates is open to every key until it says otherwise.
grant all on schema public to postgres;
grant usage on schema public to anon, authenticated, service_role;
alter default privileges for role postgres in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges for role postgres in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges for role postgres in schema public grant all on sequences to anon, authenticated, service_role;

create schema auth;
grant usage on schema auth to postgres, anon, authenticated, service_role;
create table auth.users (
    id uuid primary key default gen_random_uuid(),
    email text unique,
    raw_user_meta_data jsonb not null default '{}',
    created_at timestamptz not null default now()
);
alter table auth.users enable row level security;
grant all on auth.users to postgres;
grant select on auth.users to service_role;

create function auth.jwt() returns jsonb language sql stable as
    $$ select nullif(current_setting('request.jwt.claims', true), '')::jsonb $$;
create function auth.uid() returns uuid language sql stable as
    $$ select (auth.jwt() ->> 'sub')::uuid $$;
create function auth.role() returns text language sql stable as
    $$ select auth.jwt() ->> 'role' $$;

-- PostgREST learns of every change of the schema by itself.
create function extensions.tell_postgrest() returns event_trigger language plpgsql as
    $$ begin notify pgrst, 'reload schema'; end $$;
create event trigger tell_postgrest_of_ddl on ddl_command_end execute function extensions.tell_postgrest();
create event trigger tell_postgrest_of_drop on sql_drop execute function extensions.tell_postgrest();

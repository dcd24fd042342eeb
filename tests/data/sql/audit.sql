-- What the superuser adds to world.sql for the differential fuzz: event triggers that record definitions, and one function that tells
-- what the session has touched so far. Unqualified names are avoided: the session's search_path is whatever the text made of it.
CREATE SCHEMA audit;
GRANT USAGE ON SCHEMA audit TO PUBLIC;
CREATE TABLE audit.ddl (tag text, type text, identity text, original bool, depends bool);
CREATE FUNCTION audit.defined() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    INSERT INTO audit.ddl SELECT command_tag, object_type, object_identity, NULL, NULL FROM pg_event_trigger_ddl_commands(); END $$;
CREATE FUNCTION audit.dropped() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    INSERT INTO audit.ddl SELECT 'DROP', object_type, object_identity, original, normal FROM pg_event_trigger_dropped_objects(); END $$;
CREATE EVENT TRIGGER defined ON ddl_command_end EXECUTE FUNCTION audit.defined();
CREATE EVENT TRIGGER dropped ON sql_drop EXECUTE FUNCTION audit.dropped();
CREATE FUNCTION audit.observe() RETURNS jsonb LANGUAGE sql VOLATILE SECURITY DEFINER AS $$
    SELECT pg_catalog.jsonb_build_object(
        'xid', pg_catalog.pg_current_xact_id()::text,
        -- pg_stat_xact_all_tables without its joins over every index of the system
        'tables', (SELECT pg_catalog.jsonb_object_agg(s.oid, pg_catalog.jsonb_build_array(s.name, s.scans, s.inserted, s.updated, s.deleted))
            FROM (SELECT c.oid, pg_catalog.regexp_replace(n.nspname, '^pg_temp_.*', 'pg_temp') || '.' || c.relname AS name,
                    pg_catalog.pg_stat_get_xact_numscans(c.oid) + (SELECT coalesce(sum(pg_catalog.pg_stat_get_xact_numscans(x.indexrelid)), 0)
                        FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid) AS scans,
                    pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid) AS inserted,
                    pg_catalog.pg_stat_get_xact_tuples_updated(c.oid) AS updated,
                    pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid) AS deleted
                FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind IN ('r', 'm', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'audit')
                  AND n.nspname !~ '^pg_toast') s
            WHERE s.scans + s.inserted + s.updated + s.deleted > 0),
        'catalog', (SELECT sum(pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid) + pg_catalog.pg_stat_get_xact_tuples_updated(c.oid)
                + pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid))
            FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 't') AND c.relnamespace IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)),
        'functions', (SELECT pg_catalog.jsonb_object_agg(f.funcid, pg_catalog.jsonb_build_array(f.schemaname || '.' || f.funcname, f.calls))
            FROM pg_catalog.pg_stat_xact_user_functions f WHERE f.schemaname <> 'audit'),
        'locks', (SELECT pg_catalog.jsonb_agg(DISTINCT pg_catalog.jsonb_build_array(
                pg_catalog.regexp_replace(n.nspname, '^pg_temp_.*', 'pg_temp') || '.' || c.relname, l.mode))
            FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE l.locktype = 'relation' AND l.pid = pg_catalog.pg_backend_pid() AND c.relkind IN ('r', 'p', 'v', 'm')
              AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'audit') AND n.nspname !~ '^pg_toast'),
        'advisory', (SELECT count(*) FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.pid = pg_catalog.pg_backend_pid()),
        'settings', (SELECT pg_catalog.jsonb_object_agg(pg_catalog.lower(s.name), s.setting) FROM pg_catalog.pg_settings s WHERE s.source = 'session'),
        'prepared', (SELECT pg_catalog.jsonb_agg(p.name) FROM pg_catalog.pg_prepared_statements p),
        'cursors', (SELECT pg_catalog.jsonb_agg(c.name) FROM pg_catalog.pg_cursors c WHERE c.name <> ''),
        'sequences', (SELECT pg_catalog.jsonb_object_agg(q.schemaname || '.' || q.sequencename, coalesce(q.last_value::text, ''))
            FROM pg_catalog.pg_sequences q),
        'ddl', (SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(d)) FROM audit.ddl d)) $$;

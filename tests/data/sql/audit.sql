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
        'tables', (SELECT pg_catalog.jsonb_object_agg(s.relid, pg_catalog.jsonb_build_array(
                pg_catalog.regexp_replace(s.schemaname, '^pg_temp_.*', 'pg_temp') || '.' || s.relname, coalesce(s.seq_scan, 0) + coalesce(s.idx_scan, 0), s.n_tup_ins, s.n_tup_upd, s.n_tup_del))
            FROM pg_catalog.pg_stat_xact_all_tables s
            WHERE s.schemaname NOT IN ('pg_catalog', 'information_schema', 'audit') AND s.schemaname !~ '^pg_toast'
              AND coalesce(s.seq_scan, 0) + coalesce(s.idx_scan, 0) + s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0),
        'catalog', (SELECT sum(s.n_tup_ins + s.n_tup_upd + s.n_tup_del) FROM pg_catalog.pg_stat_xact_all_tables s
            WHERE s.schemaname IN ('pg_catalog', 'pg_toast')),
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

"""What a loader asks a server to take a snapshot of its catalog: see `catalog`.

Works on PostgreSQL 12 to 18 and needs no privilege beyond CONNECT. Every name in the queries is qualified, so that
nothing in the server's search_path changes what they mean. Knows pg_catalog only.
"""
# ruff: noqa: S608 -- the only thing interpolated is the constant NAMED

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

NAMED = "n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_'"

CATALOG_QUERIES: Mapping[str, str] = MappingProxyType(
    {
        "pin": "SELECT pg_catalog.set_config('search_path', '', true)",
        "server": """
            SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
                   pg_catalog.current_schemas(false)::pg_catalog.text[],
                   pg_catalog.current_setting('is_superuser') = 'on'""",
        # schema, name, kind, row security, rules other than the view's own, user triggers, columns, server
        "relations": f"""
            SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relrowsecurity,
                   EXISTS (SELECT 1 FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1'),
                   EXISTS (SELECT 1 FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
                   ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND {NAMED} ORDER BY 1, 2""",
        # schema, name, definition with every user name qualified
        "views": f"""
            SELECT n.nspname::text, c.relname::text, pg_catalog.pg_get_viewdef(c.oid)
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = 'v' AND {NAMED} ORDER BY 1, 2""",
        # schema, name, expression of a row policy
        "policies": f"""
            SELECT n.nspname::text, c.relname::text, pg_catalog.pg_get_expr(e.expression, c.oid)
            FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
            LATERAL (VALUES (p.polqual), (p.polwithcheck)) e(expression)
            WHERE e.expression IS NOT NULL AND {NAMED} ORDER BY 1, 2, 3""",
        # child schema, child name, parent schema, parent name
        "children": f"""
            SELECT n.nspname::text, c.relname::text, pn.nspname::text, p.relname::text
            FROM pg_catalog.pg_inherits i
            JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
            WHERE c.relkind IN ('r', 'p', 'f') AND {NAMED} ORDER BY 1, 2, 3, 4""",
        # schema and name that refer, schema and name referred to, ON DELETE, ON UPDATE (pg_constraint.confdeltype: a no action,
        # r restrict, c cascade, n set null, d set default), the columns referred to. Of a partitioned table that refers the
        # root alone: its partitions have copies.
        "references": f"""
            SELECT n.nspname::text, c.relname::text, pn.nspname::text, p.relname::text, k.confdeltype::text, k.confupdtype::text,
                   ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                         WHERE a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey) ORDER BY a.attnum)
            FROM pg_catalog.pg_constraint k
            JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_catalog.pg_class p ON p.oid = k.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
            WHERE k.contype = 'f' AND {NAMED} AND (k.conparentid = 0 OR EXISTS (
                SELECT 1 FROM pg_catalog.pg_constraint o WHERE o.oid = k.conparentid AND o.conrelid = k.conrelid))
            ORDER BY 1, 2, 3, 4, 5, 6, k.conname""",
        # schema and name of an index, schema and name of its relation
        "indexes": f"""
            SELECT n.nspname::text, i.relname::text, tn.nspname::text, t.relname::text
            FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
            JOIN pg_catalog.pg_namespace n ON n.oid = i.relnamespace JOIN pg_catalog.pg_class t ON t.oid = x.indrelid
            JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace WHERE {NAMED} ORDER BY 1, 2""",
        # schema, name, when (read | write), schema and name of a user's function that the relation itself calls:
        # row policies and casts of its columns on every access; defaults, checks, indexes, triggers and, as planning
        # computes them, extended statistics on writing
        "calls": f"""
            WITH called AS (
              SELECT p.polrelid AS rel, 'read' AS moment, d.refobjid AS func
                FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_policy'::regclass
                 AND d.objid = p.oid AND d.refclassid = 'pg_catalog.pg_proc'::regclass
              UNION SELECT p.polrelid, 'read', o.oprcode::oid
                FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_policy'::regclass
                 AND d.objid = p.oid AND d.refclassid = 'pg_catalog.pg_operator'::regclass
                JOIN pg_catalog.pg_operator o ON o.oid = d.refobjid
              UNION SELECT a.attrelid, 'read', c.castfunc
                FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_cast c ON a.atttypid IN (c.castsource, c.casttarget)
                WHERE c.oid >= 16384 AND c.castfunc <> 0 AND a.attnum > 0 AND c.castcontext <> 'e'
              UNION SELECT x.adrelid, 'write', d.refobjid
                FROM pg_catalog.pg_attrdef x JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass
                 AND d.objid = x.oid AND d.refclassid = 'pg_catalog.pg_proc'::regclass
              UNION SELECT k.conrelid, 'write', d.refobjid
                FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::regclass
                 AND d.objid = k.oid AND d.refclassid = 'pg_catalog.pg_proc'::regclass WHERE k.conrelid <> 0
              UNION SELECT i.indrelid, 'write', d.refobjid
                FROM pg_catalog.pg_index i JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass
                 AND d.objid = i.indexrelid AND d.refclassid = 'pg_catalog.pg_proc'::regclass
              UNION SELECT s.stxrelid, 'write', d.refobjid
                FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_depend d ON d.objid = s.oid
                 AND d.classid = 'pg_catalog.pg_statistic_ext'::regclass AND d.refclassid = 'pg_catalog.pg_proc'::regclass
              UNION SELECT t.tgrelid, 'write', t.tgfoid FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal
              UNION SELECT a.attrelid, 'write', d.refobjid
                FROM pg_catalog.pg_attribute a
                JOIN pg_catalog.pg_constraint k ON k.contypid = a.atttypid AND a.attnum > 0
                JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::regclass
                 AND d.objid = k.oid AND d.refclassid = 'pg_catalog.pg_proc'::regclass
            )
            SELECT DISTINCT n.nspname::text, r.relname::text, called.moment, fn.nspname::text, f.proname::text
            FROM called JOIN pg_catalog.pg_class r ON r.oid = called.rel
            JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
            JOIN pg_catalog.pg_proc f ON f.oid = called.func AND f.oid >= 16384
            JOIN pg_catalog.pg_namespace fn ON fn.oid = f.pronamespace
            WHERE {NAMED} ORDER BY 1, 2, 3, 4, 5""",
        # schema, name, kind, volatility, security definer, language, extension, number of arguments
        "functions": """
            SELECT n.nspname::text, p.proname::text, p.prokind::text, p.provolatile::text, p.prosecdef, l.lanname::text,
                   COALESCE((SELECT e.extname::text FROM pg_catalog.pg_depend d
                             JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
                             WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                               AND d.refclassid = 'pg_catalog.pg_extension'::regclass LIMIT 1), ''),
                   p.pronargs::int4
            FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            JOIN pg_catalog.pg_language l ON l.oid = p.prolang
            WHERE p.oid >= 16384 ORDER BY 1, 2, 8, 3, 4, 5, 6, 7""",
        # schema, name, schema and name of its function
        "operators": """
            SELECT n.nspname::text, o.oprname::text, fn.nspname::text, f.proname::text
            FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
            LEFT JOIN pg_catalog.pg_proc f ON f.oid = o.oprcode
            LEFT JOIN pg_catalog.pg_namespace fn ON fn.oid = f.pronamespace
            WHERE o.oid >= 16384 ORDER BY 1, 2, 3, 4""",
        # schema, name, kind (pg_type.typtype), a user's type below it, checks of a domain, extension
        "types": """
            SELECT n.nspname::text, t.typname::text, t.typtype::text, t.typbasetype >= 16384,
                   ARRAY(SELECT pg_catalog.pg_get_expr(k.conbin, 0) FROM pg_catalog.pg_constraint k
                         WHERE k.contypid = t.oid AND k.contype = 'c' ORDER BY k.oid),
                   COALESCE((SELECT e.extname::text FROM pg_catalog.pg_depend d
                             JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
                             WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
                               AND d.refclassid = 'pg_catalog.pg_extension'::regclass LIMIT 1), '')
            FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
            WHERE t.oid >= 16384 AND NOT (t.typcategory = 'A' AND t.typelem <> 0) ORDER BY 1, 2""",
        # source type, target type, context, schema and name of its function
        "casts": """
            SELECT s.typname::text, t.typname::text, c.castcontext::text,
                   COALESCE(n.nspname::text, ''), COALESCE(f.proname::text, '')
            FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_type s ON s.oid = c.castsource
            JOIN pg_catalog.pg_type t ON t.oid = c.casttarget LEFT JOIN pg_catalog.pg_proc f ON f.oid = c.castfunc
            LEFT JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
            WHERE c.oid >= 16384 ORDER BY 1, 2""",
    }
)
"""What a loader runs, in this order, inside one read-only transaction. Needs no privilege beyond CONNECT."""

-- A small database for the differential fuzz: plain things, and what runs code although it looks plain. Owned by the role
-- that the texts run as, which may touch nothing outside of it. `mix` and `diary` have rows of every sort, with each combination of
-- values and NULLs, so that a condition which holds for all of them is one that leaves nothing out.
CREATE SCHEMA shadow;
CREATE TABLE public.mix (id int, name text, total int, ok boolean, token text);
CREATE TABLE public.diary (id int, name text, total int, ok boolean, token text);
INSERT INTO public.mix
    SELECT id, name, CASE WHEN n % 4 > 0 THEN n - 9 END, ok, 'mx' || pg_catalog.to_char(n, 'FM00')
    FROM (SELECT *, row_number() OVER () AS n FROM unnest(ARRAY[NULL, -7, 1, 9]) id, unnest(ARRAY[NULL, true, false]) ok,
          unnest(ARRAY[NULL, '', 'a']) name) every;
INSERT INTO public.diary SELECT id, name, total, ok, replace(token, 'mx', 'dy') FROM public.mix;
CREATE TABLE public.t (id int PRIMARY KEY, name text, total int DEFAULT 3);
CREATE TABLE public.s (id int PRIMARY KEY, t_id int REFERENCES public.t ON DELETE CASCADE ON UPDATE CASCADE, note text);
CREATE TABLE public.leaf (id int, s_id int REFERENCES public.s ON DELETE SET NULL);
CREATE TABLE public.orders (id serial PRIMARY KEY, t_id int REFERENCES public.t, at timestamptz DEFAULT now());
INSERT INTO public.t SELECT n, 'name ' || n, n FROM generate_series(1, 5) n;
INSERT INTO public.s SELECT n, n, 'note ' || n FROM generate_series(1, 4) n;
INSERT INTO public.leaf SELECT n, n FROM generate_series(1, 3) n;
CREATE TABLE public.parted (id int, name text) PARTITION BY RANGE (id);
CREATE TABLE public.part1 PARTITION OF public.parted FOR VALUES FROM (0) TO (10);
CREATE TABLE public.part2 PARTITION OF public.parted DEFAULT;
CREATE TABLE public.parent (id int, name text);
CREATE TABLE public.child (extra int) INHERITS (public.parent);
INSERT INTO public.parted VALUES (1, 'one'), (20, 'twenty');
INSERT INTO public.child VALUES (1, 'c', 2);

CREATE VIEW public.v AS SELECT id, name, total FROM public.mix WHERE id > 0;
CREATE VIEW public.nested_view AS SELECT * FROM public.v;
CREATE VIEW public.wide_view AS SELECT * FROM public.diary;
CREATE VIEW public.t_view AS SELECT id, name FROM public.t;
CREATE MATERIALIZED VIEW public.mv AS SELECT id, name FROM public.t;

CREATE TABLE public.trail (id int, what text);
CREATE FUNCTION public.writes() RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.trail VALUES (1, 'writes'); RETURN 1; END $$;
CREATE FUNCTION public.liar() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN public.writes(); END $$;
CREATE FUNCTION public.looks() RETURNS bigint LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (SELECT count(*) FROM public.diary); END $$;
CREATE FUNCTION public.extra(public.mix) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN public.writes(); END $$;
CREATE FUNCTION public.clean(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN $1; END $$;
CREATE PROCEDURE public.chore(int) LANGUAGE plpgsql AS $$ BEGIN PERFORM public.writes(); END $$;
CREATE FUNCTION public.tg() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.trail VALUES (2, TG_OP); RETURN COALESCE(NEW, OLD); END $$;
CREATE VIEW public.calling_view AS SELECT id, public.writes() FROM public.t;
CREATE VIEW public.calling_view_below AS SELECT id FROM public.calling_view;
CREATE TABLE public.triggered (id int, name text);
INSERT INTO public.triggered VALUES (1, 'x');
CREATE TRIGGER x BEFORE INSERT OR UPDATE OR DELETE ON public.triggered FOR EACH ROW EXECUTE FUNCTION public.tg();
CREATE TRIGGER y AFTER TRUNCATE ON public.triggered FOR EACH STATEMENT EXECUTE FUNCTION public.tg();
CREATE VIEW public.triggered_view AS SELECT id, name FROM public.triggered;
CREATE TABLE public.defaulting (id int DEFAULT public.writes(), name text);
CREATE TABLE public.checked (id int CHECK (public.clean(id) > -100), name text);
CREATE TABLE public.indexed (id int, name text);
CREATE INDEX ON public.indexed (public.clean(id));
INSERT INTO public.indexed VALUES (1, 'i');
CREATE TABLE public.made (id int, twice int GENERATED ALWAYS AS (public.clean(id) * 2) STORED);
CREATE TABLE public.ruled (id int, name text);
CREATE RULE r AS ON INSERT TO public.ruled DO ALSO INSERT INTO public.trail VALUES (3, 'rule');
CREATE TABLE public.policed (id int, name text);
ALTER TABLE public.policed ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.policed FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON public.policed USING (public.clean(id) > 0);
INSERT INTO public.policed SELECT n, 'p' FROM generate_series(1, 3) n;

-- A table without rows would make NOT EXISTS true for every row of another.
INSERT INTO public.orders (t_id) VALUES (1), (2);
INSERT INTO public.parent VALUES (9, 'p');
INSERT INTO public.trail VALUES (9, 'trail');
INSERT INTO public.defaulting VALUES (9, 'd');
INSERT INTO public.checked VALUES (9, 'c');
INSERT INTO public.made VALUES (9), (1);
INSERT INTO public.ruled VALUES (9, 'r');

CREATE TYPE public.mood AS ENUM ('a', 'b');
CREATE TYPE public.pair AS (x int, y text);
CREATE DOMAIN public.positive AS int CHECK (value > 0);
CREATE DOMAIN public.evil_domain AS int CHECK (value > 0 AND public.writes() = 1);
CREATE TABLE public.typed (m public.mood, p public.positive, e public.evil_domain, id int);
INSERT INTO public.typed VALUES ('a', 1, NULL, 9);
CREATE SEQUENCE public.tickets;

CREATE FUNCTION shadow.lower(int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.writes(); RETURN 'x'; END $$;
CREATE FUNCTION shadow.equal(text, int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM public.writes(); RETURN true; END $$;
CREATE OPERATOR shadow.= (LEFTARG = text, RIGHTARG = int, FUNCTION = shadow.equal);
CREATE FUNCTION shadow.to_json(public.mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM public.writes(); RETURN '1'; END $$;
CREATE CAST (public.mood AS json) WITH FUNCTION shadow.to_json(public.mood) AS ASSIGNMENT;
CREATE TABLE shadow.t (id int, name text);
INSERT INTO shadow.t VALUES (100, 'shadow');

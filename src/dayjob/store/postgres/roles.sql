-- Four group roles for one namespace, none of which can log in: login roles become members of one of them.

-- name: make
-- The roles, and the owner's ownership of all that is there. For a superuser, or for one who owns the schema and may
-- create roles.
DO $$
DECLARE
    role text;
    thing record;
BEGIN
    FOREACH role IN ARRAY ARRAY['dayjob_owner', 'dayjob_worker', 'dayjob_producer', 'dayjob_viewer'] LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles AS r WHERE r.rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
    END LOOP;
    IF NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user)
        AND NOT pg_has_role('dayjob_owner', 'USAGE') THEN
        GRANT dayjob_owner TO CURRENT_USER;
    END IF;
    IF (SELECT n.nspowner FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'dayjob') <> 'dayjob_owner'::regrole THEN
        ALTER SCHEMA dayjob OWNER TO dayjob_owner;
    END IF;
    FOR thing IN
        SELECT c.oid::regclass AS name, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = 'dayjob'::regnamespace AND c.relkind IN ('r', 'p', 'S', 'v')
            AND c.relowner <> 'dayjob_owner'::regrole
            AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend AS d  -- an identity's sequence goes with its table
                WHERE d.objid = c.oid AND d.deptype = 'i' AND c.relkind = 'S')
        ORDER BY c.oid
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO dayjob_owner', thing.kind, thing.name);
    END LOOP;
    FOR thing IN
        SELECT p.oid::regprocedure AS name FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'dayjob'::regnamespace AND p.proowner <> 'dayjob_owner'::regrole
    LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO dayjob_owner', thing.name);
    END LOOP;
END $$

-- name: close
-- What is new in the schema is for nobody but its owner, until the roles are given it.
REVOKE ALL ON ALL ROUTINES IN SCHEMA dayjob FROM PUBLIC

-- name: give
-- What each role may do, now and with the partitions and tables to come. As the owner.
REVOKE ALL ON SCHEMA dayjob FROM PUBLIC;
GRANT USAGE ON SCHEMA dayjob TO dayjob_worker, dayjob_producer, dayjob_viewer;

-- worker: all that workers, producers and people at the command line do, but no change of the schema.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dayjob TO dayjob_worker;
REVOKE INSERT, UPDATE, DELETE ON dayjob.schema FROM dayjob_worker;
GRANT SELECT, USAGE ON ALL SEQUENCES IN SCHEMA dayjob TO dayjob_worker;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA dayjob TO dayjob_worker;

-- producer: enqueue, from SQL and from Python.
GRANT EXECUTE ON FUNCTION dayjob.versions, dayjob.home, dayjob.enqueue, dayjob.enqueue_rows, dayjob.accept_rows, dayjob.nobody TO dayjob_producer;

-- viewer: see all, arguments and results included.
GRANT SELECT ON ALL TABLES IN SCHEMA dayjob TO dayjob_viewer;
GRANT EXECUTE ON FUNCTION dayjob.versions, dayjob.clock, dayjob.depths TO dayjob_viewer;

ALTER DEFAULT PRIVILEGES IN SCHEMA dayjob GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO dayjob_worker;
ALTER DEFAULT PRIVILEGES IN SCHEMA dayjob GRANT SELECT ON TABLES TO dayjob_viewer;
ALTER DEFAULT PRIVILEGES IN SCHEMA dayjob GRANT SELECT, USAGE ON SEQUENCES TO dayjob_worker

"""The `interlock` command. Talks to the daemon over its socket or URL, never to the database."""

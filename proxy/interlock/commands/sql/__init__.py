"""Understanding SQL: PostgreSQL's own grammar into effects. Pure: no sockets, files, clock or randomness."""

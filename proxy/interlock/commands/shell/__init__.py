"""Shell text into effects: pure. The grammars themselves run in children (`commands.pool`)."""

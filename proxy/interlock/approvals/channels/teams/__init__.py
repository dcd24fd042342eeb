"""Microsoft Teams over the Bot Connector protocol: cards out, Action.Execute in, behind a strict gate."""

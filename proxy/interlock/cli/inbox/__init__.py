"""`interlock approvals watch` in a terminal: the inbox, live."""

"""SSH: the front end for `ssh TARGET 'command'` and the connections to SSH targets. Asks the gate, never decides."""

"""Where the command line finds the daemon of the same machine."""

SOCKET = "interlock.sock"
"""Name of the daemon's unix socket inside data_dir (0700): whoever reaches it is the local operator."""

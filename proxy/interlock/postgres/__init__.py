"""The Postgres front end: its protocol, its listener, its connection to the target. It asks the gate and never decides."""

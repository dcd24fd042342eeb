"""Rules over facts. Pure: no bytes, sockets, clock or channels."""

"""Rows that outlive the process: requests, votes and the directory. One schema for SQLite and PostgreSQL."""

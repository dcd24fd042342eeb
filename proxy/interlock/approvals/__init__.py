"""Requests, votes and their one desk. Channels are thin clients of it."""

"""Slack: Block Kit messages out, clicks and forms in over Socket Mode or signed HTTP, behind a strict gate."""

"""The console: where a reviewer reads a whole request and answers it. Server-rendered, no external assets."""

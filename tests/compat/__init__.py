"""Third-party clients and test suites, run directly and through the proxy, and their results compared: `make compat`."""

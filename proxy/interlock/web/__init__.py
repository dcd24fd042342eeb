"""HTTP: the API, the console, and the inbound side of chat channels. Thin clients of the desk."""

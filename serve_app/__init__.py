"""The HTTP API and the pages, behind Ray Serve.  Stateless: every answer comes from the registry."""

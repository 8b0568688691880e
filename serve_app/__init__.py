"""The HTTP API and the pages, behind Ray Serve.  Stateless: answers come from the registry, compared with the database."""

"""Sample applications, each a module to run: `python -m chisocket.apps.echo`, `python -m chisocket.apps.file`."""

"""Programs behind `make`: each runs as `python -m tests.tools.NAME` in the repository."""

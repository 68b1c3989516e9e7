"""The pure core: what happened to a run, and what has to happen next."""

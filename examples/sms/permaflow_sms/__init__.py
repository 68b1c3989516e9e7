"""SMS for Permaflow: `integration.py` says what there is, `steps.py` does it."""

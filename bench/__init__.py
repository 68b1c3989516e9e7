"""What Permaflow costs and how fast it is, measured on real processes: `python -m bench`."""

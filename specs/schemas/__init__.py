"""JSON Schemas of the dialects, for editors and for whoever writes documents by program."""

"""Dialects and the small languages of documents."""

"""Servers that behave like the real services, and the demonstration built on them."""

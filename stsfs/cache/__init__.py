"""Bytes of object versions, kept in recycled memory within one budget."""

"""What may happen where: the rules of storage locations, as one table."""

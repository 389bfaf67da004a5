"""Credentials: where they come from, and the lease that keeps them fresh."""

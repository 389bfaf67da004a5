"""A Synapse for demo and tests: its REST API in memory, faithful enough for the real client."""

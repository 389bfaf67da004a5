"""A storage location as Synapse shows it: folders and files by name, each mapped to its object."""

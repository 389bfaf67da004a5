"""stsfs: a Synapse STS storage location, or any S3 prefix, as a local directory."""

__version__ = "0.1.0"

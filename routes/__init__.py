"""The blueprints, each in a file named after what its URLs are about."""

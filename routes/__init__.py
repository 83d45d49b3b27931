"""The blueprints, each in a file named after its URLs."""

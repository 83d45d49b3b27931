"""What may come in and go out. Requests and responses have schemas of their own."""

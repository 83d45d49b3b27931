"""What is stored and what it can do; nothing here knows HTTP."""

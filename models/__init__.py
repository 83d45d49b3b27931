"""What is stored and what it can do; nothing here reads a request or answers one."""

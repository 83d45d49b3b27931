"""Measurements of Latchkey that anybody can run."""

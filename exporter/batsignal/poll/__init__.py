"""The world: talks to servers and returns values; it never judges."""

"""Memory: signals with a life, running totals, and the one board that everyone reads."""

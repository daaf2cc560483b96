"""Judgement: pure modules, one a kind; no clock, no I/O, no third-party import."""

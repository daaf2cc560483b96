"""The table that judges every detector: simulated incidents and everyday life, judged by us and by the stock rules.

It measures and reports, and sets no bar. Detectors, scenarios and their truth stand elsewhere, so that no number here
can be tuned beside what it measures.
"""

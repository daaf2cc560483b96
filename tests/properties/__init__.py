"""What must be true of any input: how looks are altered without changing what happened, and looks at anything."""

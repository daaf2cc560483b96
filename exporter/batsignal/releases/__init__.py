"""The way back: which sessions of a culprit are to end. Values in, values out; it talks to no server."""

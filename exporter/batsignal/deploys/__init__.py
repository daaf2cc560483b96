"""Deploys: what they are known by. Values in, values out; it talks to no server."""

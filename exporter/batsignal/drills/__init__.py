"""Real incidents on a scratch database: a server, a shop with a pool, customers, and the daemon that watches them.

Owns what it takes to make an incident happen for real and to leave nothing behind. It must not print (that is `cli`'s)
and must not import the daemon: it runs it as a process, as a user would. `guardian` is where to start reading.
"""

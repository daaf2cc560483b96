"""Real incidents on a scratch database: actors with real sessions, and the daemon that watches them.

Owns what it takes to make an incident happen for real and to leave nothing behind. It must not print (that is `cli`'s)
and must not import the daemon: it runs it as a process, as a user would. `catalogue` says what can be played,
`play` how; `acts` holds one act a row, `ground` the server that it is played on.
"""

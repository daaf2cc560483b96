"""Who takes part in a drill: services behind pools, pods, clients without one, programs, endpoints, the demo's shop.

Owns behaviour and no plot: what an incident is made of stands in `acts`, the server it is played on in `ground`.
"""

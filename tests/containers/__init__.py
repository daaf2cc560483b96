"""Containers without an engine: what docker-compose.yml and exporter/Dockerfile say, done with Linux's own means.

An image is an overlay over this machine's own file system, so that Debian's programs stand for those of the images; a
service is a process in that root, with the user, environment, mounts, health check and order that the files name. All
of it lives in namespaces of its own and is gone with them. Needs root, as an engine does.
"""

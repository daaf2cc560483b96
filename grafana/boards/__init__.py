"""The builder of the Grafana dashboards: typed Python in, the JSON of `grafana/dashboards/` out.

`make dashboards` writes the files; a test fails when they are not what this writes. It is built on Grafana's own
foundation SDK, pinned, so that mypy checks every option against the schema of Grafana 11.6. Numbers that rules judge by
come from `batsignal.config`, words from the status page: neither is said twice. None of this ships, but the JSON.
"""

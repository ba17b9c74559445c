"""Studies: what is searched, how it runs on a cluster, and what people see of it."""

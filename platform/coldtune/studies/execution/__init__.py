"""Ray: the cluster, Tune's searcher, callbacks and executor, and one driver that runs a study."""

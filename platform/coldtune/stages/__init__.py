"""Train, sample, measure: the stages of a trial, each keyed by what determined its result."""

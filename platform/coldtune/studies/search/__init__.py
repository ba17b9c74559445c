"""The search: which point comes next (sampler) and which trial ends early (pruner)."""

"""Ablation designs: fixed sets of trials, such as the paper's tables."""

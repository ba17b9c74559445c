"""Races that cannot be: ends out of range, studies without a list of settings, and studies that began otherwise."""

from __future__ import annotations

from bad_row import Row, command, flag, job, space

BASE = "base: digits-quick\n"
LISTED = BASE + "variants: {a: {}, b: {restorer.size: tiny}}\n"
GRID = BASE + "vary: {sampler.num_steps: {choices: [null, 2, 3]}}\nsearch: {algorithm: grid}\n"
RACE = "replicates: {first: 2, most: 10}\n"
ENDS = "replicates = {first: 2, most: 10}"

ROWS: list[Row] = [
    # --- the ends
    space("race-first-one", LISTED + "replicates: {first: 1, most: 10}\n", ["replicates.first = 1", "2"]),
    space("race-most-two", LISTED + "replicates: {first: 2, most: 2}\n", ["replicates.most = 2", "3"]),
    space("race-most-huge", LISTED + "replicates: {first: 2, most: 1001}\n", ["replicates.most = 1001", "1000"]),
    space("race-backwards", LISTED + "replicates: {first: 5, most: 3}\n", ["first = 5", "most = 3"]),
    space("race-without-most", LISTED + "replicates: {first: 2}\n", ["replicates.most", "required"]),
    space("race-unknown-end", LISTED + "replicates: {first: 2, last: 3}\n", ["replicates.last = 3", "first, most"]),
    space("race-text", LISTED + "replicates: 2..10\n", ["replicates = '2..10'", "{first: 2, most: 10}"]),
    space("race-fraction", LISTED + "replicates: {first: 2, most: 4.5}\n", "replicates.most = 4.5"),
    flag("race-flag-first-one", "--replicates=1..5", ["--replicates.first = 1", "2"]),
    flag("race-flag-backwards", "--replicates=5..3", ["--replicates", "first = 5", "most = 3"]),
    flag("race-flag-open", "--replicates=2..", ["--replicates '2..'", "2..10"]),
    flag("race-flag-hyphen", "--replicates=2-10", ["--replicates '2-10'", "2..10"]),
    flag("race-flag-fraction", "--replicates=2.5", ["--replicates '2.5'", "whole number"]),
    # --- the study
    space("race-search", BASE + "vary: {degradation.steps: {low: 10, high: 40}}\n" + RACE, [ENDS, "search", "list"]),
    flag("race-flag-search", "--replicates=2..10", [ENDS, "search", "list"]),
    space("race-single-variant", BASE + "variants: {a: {}}\n" + RACE, [ENDS, "single setting"]),
    space("race-half-a-grid", GRID + RACE, ["--trials 2", "3 settings"], "--trials=2"),
    space("race-too-large", LISTED + "replicates: {first: 2, most: 400}\n", ["2 settings", "800 trainings", "600"]),
    space("race-two-objectives", LISTED + RACE + "objective: [{metric: fid}, {metric: kid}]\n",
          [ENDS, "one objective", "fid, kid"]),
    space("race-by-nfe", LISTED + RACE + "objective: {metric: nfe}\n", [ENDS, "objective.metric = 'nfe'", "fid"]),
    space("race-with-pruning", GRID + RACE + "rungs: {steps: [100]}\npruning: {kind: median}\n",
          [ENDS, "pruning.kind = 'median'", "no mean"]),
    space("race-with-import", LISTED + RACE, [ENDS, "--import other", "store"], "--import", "other"),
    job("race-paper-table", "--table 1 --replicates 2..5", ["{first: 2, most: 5}", "table"], program="paper_table"),
    space("race-with-a-number", LISTED + RACE, ["--replicates 5", "{first: 2, most: 10}"], "--replicates=5"),
    space("race-with-varied-seed", BASE + "variants: {a: {}, b: {training.seed: 1}}\n" + RACE,
          ["training.seed differs", "10 replicates"]),
    # --- a study that began otherwise
    command("race-resume-fixed", "study resume {study} --replicates 2..10",
            [ENDS, "{study}", "cannot become a race", "--study NAME"], home="study"),
]  # fmt: skip

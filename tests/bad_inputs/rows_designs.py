"""Designs: kinds that do not exist, factors without levels, factors that a kind cannot use, and sections that clash."""

from __future__ import annotations

from bad_row import Row, command, setting, space

KIND = "design: {kind: one_factor}\n"
FACTORS = "factors: {training.loss: [l1, l2]}\n"


def design(name: str, text: str, *says: str, **more: object) -> Row:
    """Return a row for a space with the base `digits-quick`."""
    return space(name, f"base: digits-quick\n{text}", says, **more)


def factors(name: str, text: str, *says: str, kind: str = "one_factor") -> Row:
    """Return a row for the section `factors`."""
    return design(name, f"design: {{kind: {kind}}}\nfactors: {text}\n", *says)


def two_levels(count: int) -> str:
    """Return a number of factors of two levels each, as YAML."""
    keys = ("training.loss: [l1, l2]", "sampler.clamp: [false, true]", "training.ema_warmup: [true, false]",
            "training.clip_norm: [null, 1.0]", "degradation.steps: [20, 10]", "training.batch_size: [64, 32]",
            "training.lr: [0.001, 0.002]", "training.ema_every: [1, 2]", "restorer.index: [t, t-1]",
            "sampler.returns: [x0, estimate]")  # fmt: skip
    return "{" + ", ".join(keys[:count]) + "}"


_NEVER = "{training.loss: [l1, l2], sampler.num_steps: {levels: %s, when: {sampler.algorithm: [direct]}}}"

ROWS: list[Row] = [
    factors("factor-without-effect", _NEVER % "[null, 5]", "factors.sampler.num_steps: has no effect in any arm",
            "sampler is direct"),
    factors("single-level-without-effect", _NEVER % "[5]", "factors.sampler.num_steps: has no effect in any arm"),
    factors("factorial-base-null", "{sampler.num_steps: [10, 5], training.loss: [l1, l2]}",
            "factors.sampler.num_steps = [10, 5]: the base has null", "Add it", kind="factorial"),
    # --- the section `design`
    design("design-null", "design: null\n" + FACTORS, "design = None", "mapping", "factorial"),
    design("design-text", "design: factorial\n" + FACTORS, "design = 'factorial'", "mapping with `kind`"),
    design("design-list", "design: [factorial]\n" + FACTORS, "design", "mapping"),
    design("design-empty", "design: {}\n" + FACTORS, "design.kind = None", "one_factor"),
    design("design-kind-unknown", "design: {kind: taguchi}\n" + FACTORS, "design.kind = 'taguchi'", "factorial"),
    design("design-kind-number", "design: {kind: 2}\n" + FACTORS, "design.kind = 2", "factorial"),
    design("design-kind-list", "design: {kind: [factorial]}\n" + FACTORS, "design.kind", "factorial"),
    design("design-unknown-key", "design: {kind: factorial, levels: 2}\n" + FACTORS, "design.levels", "kind"),
    design("design-factors-inside", "design: {kind: factorial, factors: {training.loss: [l1, l2]}}\n",
           "design: needs factors"),
    design("design-resolution-of-a-factorial", "design: {kind: factorial, resolution: 4}\n" + FACTORS,
           "design.resolution", "kind"),
    design("design-resolution-low", f"design: {{kind: fractional, resolution: 2}}\nfactors: {two_levels(4)}\n",
           "design.resolution = 2", "3"),
    design("design-resolution-text", f"design: {{kind: fractional, resolution: IV}}\nfactors: {two_levels(4)}\n",
           "design.resolution = 'IV'", "integer"),
    design("design-resolution-bool", f"design: {{kind: fractional, resolution: true}}\nfactors: {two_levels(4)}\n",
           "design.resolution = True", "integer"),
    # --- sections that belong together, and sections that do not
    design("design-without-factors", KIND, "design: needs factors"),
    design("factors-without-design", FACTORS, "factors: need design", "one_factor"),
    design("design-beside-vary", KIND + FACTORS + "vary: {degradation.steps: {low: 10, high: 40}}\n", "vary: cannot",
           "design"),
    design("design-beside-variants", KIND + FACTORS + "variants: {a: {}, b: {restorer.size: tiny}}\n",
           "variants: cannot", "design"),
    design("design-beside-first", KIND + FACTORS + "first: [{degradation.steps: 10}]\n", "first: cannot", "design"),
    design("design-beside-pruning", KIND + FACTORS + "rungs: {steps: [100]}\npruning: {kind: median}\n", "pruning"),
    design("design-unknown-section", KIND + FACTORS + "factor: {}\n", "factor", "factors"),
    design("design-constrain-unknown", KIND + FACTORS + "constrain: {steps: {max: 3}}\n", "constrain.steps", "nfe"),
    design("design-derive-a-factor",
           KIND + "factors: {degradation.sigma.start: [0.5, 1.0]}\n"
           "derive: {degradation.sigma.start: {hold: leftover}}\n", "derive.degradation.sigma.start", "factor"),
    design("design-derive-unknown", KIND + FACTORS + "derive: {training.lr: {hold: leftover}}\n", "derive.training.lr",
           "sigma.start"),
    # --- factors and their levels
    factors("factors-null", "null", "factors = None", "mapping"),
    factors("factors-list", "[training.loss]", "factors", "mapping"),
    factors("factors-empty", "{}", "factors: there are none", "dotted key"),
    factors("factor-null", "{training.loss: null}", "factors.training.loss = None", "list of levels"),
    factors("factor-text", "{training.loss: l2}", "factors.training.loss = 'l2'", "list of levels"),
    factors("factor-without-levels", "{training.loss: []}", "factors.training.loss", "there are no levels"),
    factors("factor-mapping-without-levels", "{training.loss: {when: {sampler.clamp: true}}}",
            "factors.training.loss.levels", "required"),
    factors("factor-one-level", "{training.loss: [l1]}", "factors.training.loss", "a single level"),
    factors("factors-all-set", "{training.loss: {levels: [l2], when: {sampler.clamp: false}}}", "factors",
            "single level", "nothing is compared"),
    factors("factor-set-to-another-value-than-the-base", "{degradation.sigma.schedule: [exponential, constant], "
            "degradation.sigma.rate: {levels: [0.04], when: {degradation.sigma.schedule: exponential}}}",
            "factors.degradation.sigma.rate", "[0.04]", "0.05", "--set degradation.sigma.rate=0.04"),
    factors("factor-set-without-effect", "{sampler.algorithm: [tacos, direct], sampler.num_steps: "
            "{levels: [99], when: {sampler.algorithm: tacos}}}", "sampler.num_steps", "99"),
    factors("factor-level-twice", "{training.loss: [l1, l2, l1]}", "factors.training.loss", "'l1' is there twice"),
    factors("factor-level-twice-as-text", "{training.lr: [1e-3, 0.001]}", "factors.training.lr",
            "0.001 is there twice"),
    factors("factor-range", "{training.lr: {low: 0.001, high: 0.01}}", "factors.training.lr", "levels"),
    factors("factor-choices", "{training.lr: {choices: [0.001, 0.01]}}", "factors.training.lr.choices", "levels"),
    factors("factor-unknown-key", "{training.looss: [l1, l2]}", "factors.training.looss", "training.loss"),
    factors("factor-section", "{training: [a, b]}", "factors.training", "section"),
    factors("factor-nested", "{training: {loss: {levels: [l1, l2]}}}", "factors.training.loss", "dotted key"),
    factors("factor-variant", "{variant: [a, b]}", "factors.variant", "dotted key"),
    factors("factor-protocol", "{protocol.seed: [0, 1]}", "factors.protocol.seed", "judged"),
    factors("factor-dataset", "{data.name: [digits, mnist]}", "factors.data.name", "judged"),
    factors("factor-prior", "{prior.kind: [gmm, normal]}", "factors.prior.kind"),
    factors("factor-level-unknown", "{training.loss: [l1, l3]}", "factors.training.loss.levels.1 = 'l3'", "'l2'"),
    factors("factor-level-text", "{training.lr: [0.001, fast]}", "factors.training.lr.levels.1 = 'fast'", "number"),
    factors("factor-level-bool", "{degradation.steps: [20, true]}", "factors.degradation.steps.levels.1 = True",
            "integer"),
    factors("factor-level-nan", "{training.lr: [0.001, .nan]}", "factors.training.lr", "finite"),
    factors("factor-level-list", "{training.lr: [[0.001], [0.01]]}", "factors.training.lr.levels"),
    factors("factor-level-mapping", "{degradation.sigma: [{start: 1.0}, {start: 2.0}]}", "factors.degradation.sigma"),
    factors("factor-level-out-of-bounds", "{training.batch_size: [64, 0]}", "factors.training.batch_size", "= 0"),
    factors("factor-level-that-fits-no-arm", "{degradation.kernel_size: [7, 99]}", "factors.degradation.kernel_size",
            "99"),
    factors("factor-level-that-fits-no-arm-of-a-factorial",
            "{degradation.kernel_size: [7, 99], training.loss: [l1, l2]}", "factors.degradation.kernel_size",
            "no arm can have the level 99", kind="factorial"),
    factors("factor-short-names", "{degradation.kind: [blur, mask], degradation.kind: [blur, mask]}", "twice"),
    factors("factor-without-the-base", "{degradation.steps: [10, 30]}", "factors.degradation.steps = [10, 30]",
            "the base has 20", kind="factorial"),
    factors("factor-when-unknown", "{training.loss: {levels: [l1, l2], when: {training.x: 1}}}",
            "factors.training.loss.when.training.x"),
    factors("factor-when-below", "{training.loss: {levels: [l1, l2], when: {sampler.clamp: true}}, "
            "sampler.clamp: [true, false]}", "factors.training.loss.when.sampler.clamp", "above"),
    factors("factor-when-never", "{sampler.clamp: [true, false], training.loss: {levels: [l1, l2], "
            "when: {sampler.clamp: maybe}}}", "factors.training.loss.when.sampler.clamp", "never"),
    factors("factor-when-list", "{training.loss: {levels: [l1, l2], when: [a]}}", "factors.training.loss.when",
            "mapping"),
    factors("factor-when-empty", "{sampler.clamp: [true, false], training.loss: {levels: [l1, l2], "
            "when: {sampler.clamp: []}}}", "factors.training.loss.when.sampler.clamp", "at least one"),
    # --- what a kind cannot use
    factors("fractional-three-levels", "{training.loss: [l1, l2], sampler.clamp: [false, true], "
            "degradation.steps: [10, 20, 30]}", "factors.degradation.steps = [10, 20, 30]", "factorial",
            kind="fractional"),
    factors("fractional-two-factors", two_levels(2), "factors: 2", "factorial", kind="fractional"),
    factors("fractional-when", "{sampler.algorithm: [tacos, direct], training.loss: [l1, l2], sampler.num_steps: "
            "{levels: [null, 5], when: {sampler.algorithm: tacos}}}", "factors.sampler.num_steps.when", "factorial",
            kind="fractional"),
    factors("leave-one-out-three-levels", "{training.ema_decay: [0, 0.9, 0.99]}", "factors.training.ema_decay",
            "one_factor", kind="leave_one_out"),
    factors("add-one-in-three-levels", "{training.ema_decay: [0, 0.9, 0.99]}", "factors.training.ema_decay",
            "one_factor", kind="add_one_in"),
    factors("factorial-too-many-arms", two_levels(10), "factors: make 1,024 arms", "at most 1,000", "fractional",
            kind="factorial"),
    factors("one-factor-too-many-arms", "{training.seed: [" + ", ".join(map(str, range(1100))) + "]}",
            "factors: make 1,100 arms", "at most 1,000"),
    factors("factor-of-which-one-arm-is-left", "{training.lr: [0.001, 0.001000000000000000001]}",
            "factors.training.lr", "twice"),
    design("arms-all-beyond-a-constraint",
           KIND + "factors: {degradation.steps: [20, 40]}\nconstrain: {nfe: {max: 20}}\n", "factors", "single arm"),
    design("reference-beyond-a-constraint",
           KIND + "factors: {degradation.steps: [20, 40]}\nconstrain: {nfe: {min: 30}}\n", "design: its reference",
           "constrain.nfe"),
    setting("set-design", "design.kind=factorial", ["design"]),
    space("trials-of-a-design", f"base: digits-quick\n{KIND}{FACTORS}", ["--trials 5", "2"], "--trials", "5"),
    # --- coldtune ablate
    command("ablate-unknown", "ablate nosuch", ["nosuch", "{home}"]),
    command("ablate-nothing", "ablate", ["STUDY"]),
    command("ablate-traversal", "ablate ../x", ["../x", "without /"]),
    command("ablate-unfinished", "ablate {study}", ["{study}", "trials have ended", "study resume"], home="study"),
    command("ablate-trial-text", "ablate {study} --trial best", ["--trial", "best"], home="study"),
    command("ablate-unknown-flag", "ablate {study} --trials 3", ["--trials"], home="study"),
]  # fmt: skip

"""The restorer of a finished trial as a folder that diffusers loads: safetensors, config.json and a model card."""

from __future__ import annotations

import pprint
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from coldtune import environment
from coldtune.config import plain
from coldtune.diffusion import Restorer, build_degradation, nfe
from coldtune.diffusion.priors import build_prior
from coldtune.dotted import leaves
from coldtune.metrics import Judgement
from coldtune.metrics.registry import label
from coldtune.stages.chain import SAMPLED, Chain
from coldtune.stages.compute import Compute
from coldtune.stages.evaluate import FinishedTrial
from coldtune.stages.finished_restorer import find_checkpoints, find_restorer
from coldtune.stages.keys import PLAIN
from coldtune.stages.trial import RungConfig, TrialConfig
from coldtune.stages.weights import Weights
from coldtune.store.store import Entry, Store
from coldtune.tensor_files import save_tensors, usual_permissions
from coldtune.training import load_restorer

CARD, CONFIG, PRIOR = "README.md", "config.yaml", "prior.safetensors"
WEIGHTS = "diffusion_pytorch_model.safetensors"  # the name that diffusers gives and expects
_MADE = ("commit", "coldtune", "python", "torch", "device", "threads", "workers")


def export(run: FinishedTrial, store: Store, folder: Path) -> str:
    """Write the averaged weights with which a trial samples into an empty folder.

    The folder has one network. If the trial's sampler is guided, the step that guides is left out, and the model card
    has no values.

    `diffusers.UNet2DModel.from_pretrained(folder)` loads them. No file is a pickle. If anything fails, the folder is
    empty again.

    Returns:
        Why the model card contains no values, or "" if it does.

    Raises:
        ValueError: If the restorer is not in the store.
    """
    entry = find_restorer(run, store)
    config, shape = run.config, run.dataset.image_shape
    source = run.source.split("train").images if run.source else None
    d = build_degradation(config.degradation, shape, source)
    prior = build_prior(config.prior or PLAIN, d)
    state = prior.fit(run.dataset.split("train").images, seed=config.protocol.seed) if prior.learns else {}
    weights, checkpoints = Weights.of(config.training, config.sampler), find_checkpoints(run, store, entry)
    load = partial(load_restorer, restorer=config.restorer, image_shape=shape, steps=d.steps)
    network = weights.network(checkpoints, load)
    assert isinstance(network, Restorer)
    judgement, missing = _find_values(run, store, entry)
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with usual_permissions(folder / WEIGHTS):
            network.net.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]
        if state:
            save_tensors(state, folder / PRIOR)
        (folder / CONFIG).write_text(yaml.safe_dump(plain(config), sort_keys=False), encoding="utf-8")
        (folder / CARD).write_text(model_card(run, entry, judgement, missing, bool(state)), encoding="utf-8")
    except BaseException:
        for path in folder.iterdir():
            path.unlink()
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return missing


def model_card(
    run: FinishedTrial, entry: Entry, judgement: Judgement | None, missing: str = "", learned: bool = False
) -> str:
    """Return the model card of a restorer as Markdown.

    Args:
        entry: The checkpoint in the store.
        judgement: The values of the trial's own sampler.
        missing: Why there are no values.
        learned: Whether the folder contains what the prior has learned.
    """
    config, shape = run.config, run.dataset.image_shape
    told = "t" if config.restorer.index == "t" else "t - 1"
    steps = int(config.degradation["steps"])
    made = {name: entry.made[name] for name in _MADE if entry.made.get(name) is not None}
    lines = [
        f"# {run.name}: a restorer for generalised (cold) diffusion",
        "",
        f"A U-Net R(x_t, {told}) that estimates the clean image x_0 from an image x_t = D(x_0, t), degraded by "
        f"{config.degradation['kind']}. `coldtune export` wrote this folder.",
        "",
        f"- Images: float32 (B, {', '.join(map(str, shape))}) in [-1, 1], from {run.dataset.name}.",
        f"- Severity: t = 1..{steps}, with D(x, 0) = x. **The network is told {told}**, as int64 (B,).",
        "- Output: the estimate of x_0 itself, not of noise. It may lie slightly outside [-1, 1].",
        f"- Weights: {_weights(config)}, in safetensors.",
        f"- `{CONFIG}`: the whole configuration of the trial, for `coldtune rerun`, `restore` and `evaluate`.",
        *([f"- `{PRIOR}`: what the prior of x_T has learned."] if learned else []),
        "",
        "## How to sample",
        "",
        "Run this in this folder. It needs coldtune and diffusers.",
        "",
        "```python",
        *_example(run, learned),
        "```",
        "",
        *_section("Degradation", plain(config.degradation)),
        *_section("Training", plain(config.training)),
        *_section("Sampler", plain(config.sampler)),
        *(_section("Prior", config.prior) if config.prior else []),
        *_values(run, judgement, missing),
        *_section("Made with", {"pixels": run.dataset.fingerprint, **made}),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _find_values(run: FinishedTrial, store: Store, entry: Entry) -> tuple[Judgement | None, str]:
    """Return the stored values of the trial's own sampler, or why they cannot be had."""
    if run.config.sampler.guided:
        return None, "the trial's sampler is guided by an earlier step of the training, which this folder does not have"
    extractor = run.config.protocol.extractor
    if ":" in extractor and not environment.allows_code():
        return None, f"the extractor {extractor} is code, which runs only if {environment.ALLOW_CODE}=1 is set"
    threads = entry.made.get("threads")  # of the training, and so most likely of the judgement
    found = (*([Compute(device="cpu", threads=threads)] if isinstance(threads, int) else []), *run.computed)
    try:
        config = run.config.model_copy(update={"rungs": RungConfig()})
        chain = Chain(config, run.dataset, store, source=run.source, found=found)
    except (ValueError, OSError) as error:  # such as an extractor whose weights are not on this machine
        return None, str(error)
    judged = store.find("measure", chain.measure_key(chain.sample_key(config.sampler)))
    return (None, "they are not in the store") if judged is None else (Judgement.load(judged.path), "")


def _values(run: FinishedTrial, judgement: Judgement | None, missing: str) -> Iterator[str]:
    yield from ("## Values", "")
    if judgement is None:
        yield from (f"Not listed: {missing}.", "")
        return
    evaluations = nfe(run.config.sampler, int(run.config.degradation["steps"]))
    yield f"Of the images of the sampler above ({SAMPLED}, {evaluations} evaluations of the network an image)."
    yield f"Protocol: {judgement.protocol.describe()}."
    yield from ("", "| metric | value | 95 % interval |", "|:--|--:|:--|")
    for name, value in judgement.values.items():
        known = value.low is not None and value.high is not None
        interval = f"{value.low:.4g} to {value.high:.4g}" if known else ""
        yield f"| {label(name)} | {value.value:.4g} | {interval} |"
    yield ""


def _section(title: str, tree: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"## {title}", "", "| key | value |", "|:--|:--|")
    for key, value in leaves(tree):
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        yield f"| {key} | {shown} |"
    yield ""


def _example(run: FinishedTrial, learned: bool) -> Iterator[str]:
    """Yield the lines of a script that restores four images, or generates them."""
    config, shape = run.config, run.dataset.image_shape
    told = "t" if config.restorer.index == "t" else "t - 1"
    generated, random = config.task == "generated", run.source is not None
    yield from ("import coldtune", "import torch", "from diffusers import UNet2DModel")
    if generated:
        yield "from coldtune.diffusion import build_prior"
    if learned:
        yield "from safetensors.torch import load_file"
    yield from ("", 'folder = "."  # this folder', "net = UNet2DModel.from_pretrained(folder).eval()")
    yield ""
    yield ""
    yield from ("def restorer(x, t):", f"    return net(x, {told}, return_dict=False)[0]", "", "")
    yield f"degradation = {_literal(config.degradation)}"
    sources = f", torch.zeros(4, {', '.join(map(str, shape))})" if random else ""
    if random:
        yield f"# Replace the zeros by images of {run.source.name if run.source else ''}, into which x_0 turns."
    yield f"d = coldtune.build_degradation(degradation, {shape}{sources})"
    yield "seeds = torch.arange(4)"
    if generated:
        yield f"prior = build_prior({_literal(config.prior or {})}, d)"
        state = f', load_file(f"{{folder}}/{PRIOR}")' if learned else ""
        yield f"x_T, draw = prior.start(seeds{state})"
    else:
        yield f"x_0 = torch.zeros(4, {', '.join(map(str, shape))})  # replace the zeros by your images in [-1, 1]"
        yield "draw = d.draw(seeds)"
        yield "x_T = d(x_0, d.steps, draw)"
    chosen = config.sampler.without_weights().model_dump(exclude_defaults=True)
    yield f"sampler = {_literal({'algorithm': config.sampler.algorithm, **chosen})}"
    yield "images = coldtune.sample(restorer, d, x_T, sampler, draw=draw, seeds=seeds)"


def _weights(config: TrialConfig) -> str:
    """Return a text about the weights that are exported."""
    weights = Weights.of(config.training, config.sampler)
    kind = "the exponential moving average" if weights.ema_std is None else f"the average of length {weights.ema_std}"
    return f"{kind} after {weights.step:,} steps"


def _literal(tree: Mapping[str, Any]) -> str:
    return pprint.pformat(plain(dict(tree)), width=110, sort_dicts=False)

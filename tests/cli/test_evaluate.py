"""`coldtune evaluate` on a really trained study, and on pictures from elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from coldtune import cli, tracking
from coldtune.data import to_float, to_uint8
from coldtune.diffusion import build_degradation
from coldtune.metrics import compare
from coldtune.stages.chain import BASELINES, Chain
from coldtune.stages.compute import Compute
from coldtune.stages.evaluate import FinishedTrial, evaluate_runs
from coldtune.stages.evaluation_progress import count_unjudged_images, find_unsampled
from coldtune.stages.keys import train_key
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.store.store import Store
from coldtune.studies.spec.build import JUDGES
from coldtune.training.loop import train
from finished_study import Finished

HERE = Compute(device="cpu", threads=1)
SETS = ["degraded", "direct", "sampled", "naive"]
FIGURE = re.compile(r"-?[\d.,]+ \[-?[\d.,]+, -?[\d.,]+\]")


@pytest.fixture
def evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Return a function that runs the command. It returns the output and the written JSON, or raises its error."""

    def run(*arguments: object, home: Path, width: int = 200) -> tuple[str, Any]:
        monkeypatch.setenv("COLUMNS", str(width))
        file = tmp_path / "evaluation.json"
        with pytest.raises(SystemExit) as ended:
            cli.main(["evaluate", "--device", "cpu", "--home", str(home), "--json", str(file), *map(str, arguments)])
        printed = capsys.readouterr()
        if ended.value.code:
            raise ValueError(printed.err.removeprefix("error: ").strip())
        return printed.out, json.loads(file.read_text())

    return run


def values(evaluation: dict[str, Any], name: str = "sampled") -> dict[str, float]:
    return {metric: value["value"] for metric, value in evaluation["sets"][name]["metrics"].items()}


def entries(home: Path, kind: str) -> set[str]:
    return {path.parent.relative_to(home).as_posix() for path in (home / "store" / kind).rglob("manifest.json")}


def test_evaluate_finished_trial_has_the_values_of_its_study(finished: Finished, evaluate):
    before = entries(finished.home, "train"), entries(finished.home, "sample")
    output, record = evaluate(f"{finished.study}/1", home=finished.home)
    (evaluation,), outcome = record["evaluations"], finished.outcomes[1]
    assert list(evaluation["sets"]) == SETS
    for name in SETS:
        found = evaluation["sets"][name]["metrics"]
        assert values(evaluation, name) == {k: v.value for k, v in outcome.judgements[name].values.items()}
        assert {k: (v["low"], v["high"], v["n"]) for k, v in found.items()} == {
            k: (v.low, v.high, 260) for k, v in outcome.judgements[name].values.items()
        }
    assert [evaluation["sets"][name]["nfe"] for name in SETS] == [0, 1, 2, 4]
    assert evaluation["protocol_key"] == outcome.protocol.key
    shown = "".join(output.split())
    assert "".join(outcome.protocol.describe().split()) in shown, "the line may be wrapped"
    assert (entries(finished.home, "train"), entries(finished.home, "sample")) == before


def test_evaluate_study_means_its_best_trial(finished: Finished, evaluate):
    fids = [outcome.metrics["fid"] for outcome in finished.outcomes]
    _, record = evaluate(finished.study, home=finished.home)
    assert record["evaluations"][0]["name"] == f"{finished.study}/{fids.index(min(fids))}"
    assert values(record["evaluations"][0])["fid"] == min(fids)


def test_evaluate_other_split_samples_and_judges_its_images(finished: Finished, evaluate):
    _, record = evaluate(f"{finished.study}/0", "--split", "test", "--num-images", "all", home=finished.home)
    (evaluation,) = record["evaluations"]
    clean = finished.dataset.split("test").images
    assert evaluation["protocol"]["split"] == "test"
    assert evaluation["protocol"]["num_images"] == len(clean)
    d = build_degradation(finished.configs[0].degradation, finished.dataset.image_shape)
    degraded = to_uint8(d(to_float(clean), d.steps)).double()
    by_hand = ((degraded - clean.double()) / 255).square().mean(dim=(1, 2, 3)).mean().sqrt()
    assert values(evaluation, "degraded")["rmse"] == pytest.approx(float(by_hand), rel=1e-6)
    assert values(evaluation)["rmse"] != finished.outcomes[0].metrics["rmse"]


def test_evaluate_config_file_means_the_same_trial_as_its_number(finished: Finished, evaluate, tmp_path: Path):
    file = finished.config_file(tmp_path / "trial", 1)
    for path in (file, file.parent):
        _, record = evaluate(path, home=finished.home)
        assert values(record["evaluations"][0])["fid"] == finished.outcomes[1].metrics["fid"]


def test_evaluate_mlflow_run_means_the_trial_of_its_config(finished: Finished, evaluate, tmp_path: Path):
    target = tracking.prepare(tracking.default_uri(finished.home), "coldtune", finished.home / "artifacts")
    with tracking.Tracker(tmp_path / "spool", finished.study) as parent:
        parent.end("finished")
    for number in (1, 2):
        with tracking.Tracker(tmp_path / "spool", finished.study, number) as tracker:
            if number == 1:
                tracker.artifact(finished.config_file(tmp_path / "trial", 1))
            tracker.end("finished" if number == 1 else "failed")
    assert not tracking.drain(tmp_path / "spool", target).pending
    runs = {
        run.data.tags.get("coldtune.trial"): run.info.run_id
        for run in tracking.server.client(target.uri).search_runs([target.experiment_id])
    }
    _, record = evaluate(runs["1"], home=finished.home)
    assert values(record["evaluations"][0])["fid"] == finished.outcomes[1].metrics["fid"]
    with pytest.raises(ValueError, match=r"config\.yaml cannot be had.*state is 'failed'"):
        evaluate(runs["2"], home=finished.home)
    with pytest.raises(ValueError, match=f"that of study {finished.study}. Name the run of a trial"):
        evaluate(runs[None], home=finished.home)
    with pytest.raises(ValueError, match=r"no such MLflow run .*mlflow\.db"):
        evaluate("0" * 32, home=finished.home)
    with pytest.raises(ValueError, match="no such database"):
        evaluate(runs["1"], "--tracking-uri", f"sqlite:///{tmp_path}/none.db", home=finished.home)
    assert not (tmp_path / "none.db").exists()


def test_evaluate_two_runs_are_compared_image_by_image(finished: Finished, evaluate):
    output, record = evaluate(f"{finished.study}/0", f"{finished.study}/1", home=finished.home)
    first, second = (outcome.metrics for outcome in finished.outcomes)
    assert [comparison["metric"] for comparison in record["comparisons"]] == ["fid", "kid", "rmse"]
    for comparison in record["comparisons"]:
        metric = comparison["metric"]
        assert (comparison["a"], comparison["b"]) == (f"{finished.study}/1", f"{finished.study}/0")
        assert comparison["difference"] == pytest.approx(second[metric] - first[metric], rel=1e-9)
        assert comparison["low"] <= comparison["difference"] <= comparison["high"]
    a, b = (outcome.judgements["sampled"] for outcome in reversed(finished.outcomes))
    sentence = compare(a, b, "fid", (f"{finished.study}/1", f"{finished.study}/0"))
    assert str(sentence) in output
    assert sentence.per_image() in output
    assert output.count("Wilcoxon") == 1
    assert "equally degraded" not in output


def test_evaluate_several_runs_are_the_rows_of_one_table(finished: Finished, evaluate, tmp_path: Path):
    third = finished.config_file(tmp_path / "third", sampler={"num_steps": 3})
    names = [f"{finished.study}/0", f"{finished.study}/1", str(third)]
    output, record = evaluate(*names, home=finished.home, width=900)
    (head,) = [line for line in output.splitlines() if "FID ↓" in line]
    assert head.split()[:4] == ["FID", "↓", "ΔFID", "↓"]
    rows = [next(line for line in output.splitlines() if line.split()[:1] == [name]) for name in names]
    fids = [values(evaluation)["fid"] for evaluation in record["evaluations"]]
    for row, fid in zip(rows, fids, strict=True):
        assert float(row.split()[1]) == pytest.approx(fid, abs=0.06)
    assert float(rows[2].split()[4]) == pytest.approx(fids[2] - fids[0], abs=0.06)
    assert "ΔRMSE" in head
    assert "FID direct in all: " in output
    assert "sampler tacos, num_steps 2; trained for 4 steps" in output
    narrow, _ = evaluate(*names, home=finished.home, width=60)
    wide, narrow = (" ".join(text.split()) for text in (output, narrow))
    assert sorted(FIGURE.findall(narrow)) == sorted(FIGURE.findall(wide))
    markdown, _ = evaluate(*names, "--markdown", home=finished.home)
    assert sum(line.startswith(("| quick", f"| {tmp_path}")) for line in markdown.splitlines()) == 3


@pytest.mark.parametrize("listed", [False, True])
def test_evaluate_baseline_is_the_run_that_others_are_compared_with(listed: bool, finished: Finished, evaluate):
    zero, one = f"{finished.study}/0", f"{finished.study}/1"
    runs = [zero, one] if listed else [zero]
    _, record = evaluate(*runs, "--baseline", one, home=finished.home)
    assert record["baseline"] == one
    assert [evaluation["name"] for evaluation in record["evaluations"]] == [one, zero]
    assert {(comparison["a"], comparison["b"]) for comparison in record["comparisons"]} == {(zero, one)}
    with pytest.raises(ValueError, match=f"--baseline {zero}: is the only run"):
        evaluate(zero, "--baseline", zero, home=finished.home)


def test_evaluate_json_on_stdout_stands_alone(finished: Finished, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", f"{finished.study}/0", "--device", "cpu", "--home", str(finished.home), "--json", "-"])
    printed = capsys.readouterr()
    assert ended.value.code == 0
    assert values(json.loads(printed.out)["evaluations"][0])["fid"] == finished.outcomes[0].metrics["fid"]
    assert "FID" in printed.err
    assert not Path("-").exists()


def test_evaluate_unequally_degraded_runs_are_compared_with_warning(finished: Finished, evaluate, tmp_path: Path):
    weaker = finished.config_file(tmp_path / "weaker", degradation={"steps": 2})
    run = FinishedTrial("weaker", _config(weaker), finished.dataset)
    Chain(run.config, run.dataset, Store(finished.home / "store")).train(train, lambda *_: None)
    output, record = evaluate(f"{finished.study}/0", weaker, home=finished.home)
    fids = [values(evaluation, "degraded")["fid"] for evaluation in record["evaluations"]]
    assert fids[1] < 0.9 * fids[0]
    assert f"{weaker} and {finished.study}/0 do not start from equally degraded images" in output


def test_evaluate_unequal_protocols_are_refused_before_sampling(finished: Finished, evaluate, tmp_path: Path):
    other = finished.config_file(tmp_path / "other", protocol={"seed": 1, "num_images": 257})
    before = entries(finished.home, "sample")
    with pytest.raises(ValueError, match=r"they differ in num_images \(260 and 257\), seed \(0 and 1\)"):
        evaluate(f"{finished.study}/0", other, home=finished.home)
    assert entries(finished.home, "sample") == before
    _, record = evaluate(f"{finished.study}/0", other, "--seed", 1, "--num-images", 257, home=finished.home)
    assert record["comparisons"][0]["difference"] == 0  # the same restorer, sampler and images


def test_evaluate_against_training_images_keeps_the_images_and_scores(finished: Finished, evaluate):
    _, same = evaluate(f"{finished.study}/0", home=finished.home)
    before = entries(finished.home, "sample")
    _, train = evaluate(f"{finished.study}/0", "--against", "train", home=finished.home)
    assert entries(finished.home, "sample") == before, "the same images are judged again"
    a, b = same["evaluations"][0], train["evaluations"][0]
    assert b["protocol"]["reference"] == "train"
    assert a["protocol"]["reference"] == "same"
    assert a["protocol"]["num_images"] == b["protocol"]["num_images"]
    assert values(a)["rmse"] == values(b)["rmse"]
    assert values(a)["fid"] != values(b)["fid"]


def test_evaluate_run_named_twice_is_refused(finished: Finished, evaluate):
    best = min((0, 1), key=lambda number: finished.outcomes[number].metrics["fid"])
    with pytest.raises(ValueError, match=f"{finished.study}/{best}: is named twice"):
        evaluate(finished.study, f"{finished.study}/{best}", home=finished.home)


def test_evaluate_extractor_for_other_images_is_refused_before_sampling(finished: Finished, evaluate):
    before = entries(finished.home, "sample")
    with pytest.raises(ValueError, match=f"^{finished.study}/0: images of 1 channels"):
        evaluate(f"{finished.study}/0", "--seed", 77, "--extractor", "cifar10", home=finished.home)
    assert entries(finished.home, "sample") == before


def test_evaluate_missing_restorer_is_refused_and_not_trained(finished: Finished, evaluate, tmp_path: Path):
    file = finished.config_file(tmp_path / "longer", training={"steps": 7})
    key = train_key(_config(file), finished.dataset, compute=HERE)
    before = entries(finished.home, "train")
    with pytest.raises(ValueError, match=rf"^{file}: training.steps = 7: no restorer .*{key[:12]}.* at step 4"):
        evaluate(file, home=finished.home)
    assert entries(finished.home, "train") == before


def test_evaluate_does_not_judge_rungs_again(finished: Finished, tmp_path: Path):
    file = finished.config_file(tmp_path / "rungs", rungs={"steps": [2]})
    run = FinishedTrial("rungs", _config(file), finished.dataset)
    (evaluation,) = evaluate_runs([run], Store(finished.home / "store"))
    assert evaluation["sampled"].values["fid"].value == finished.outcomes[0].metrics["fid"]


def test_evaluate_sampler_equal_to_baseline_is_sampled_once(finished: Finished, tmp_path: Path):
    config = _config(finished.config_file(tmp_path / "naive", sampler={"algorithm": "naive"}, protocol={"seed": 2}))
    store = Store(finished.home / "store")
    samplers = [None, *BASELINES.values(), config.sampler]
    chain = Chain(config, finished.dataset, store)
    assert find_unsampled(chain, samplers) == [True, True, True, False]
    assert count_unjudged_images(chain, samplers) == 3 * 260, "the reference was judged with earlier trials"
    (evaluation,) = evaluate_runs([FinishedTrial("naive", config, finished.dataset)], store)
    assert evaluation["sampled"].values == evaluation["naive"].values
    assert not any(find_unsampled(chain, samplers))
    assert count_unjudged_images(chain, samplers) == 0


def test_evaluate_generated_images_have_no_image_scores(finished: Finished, evaluate, tmp_path: Path):
    priors = [{"kind": "gmm", "components": count} for count in (1, 2)]
    files = [finished.config_file(tmp_path / f"prior-{i}", prior=prior) for i, prior in enumerate(priors)]
    output, record = evaluate(*files, "--num-images", 400, home=finished.home)
    for evaluation in record["evaluations"]:
        assert evaluation["protocol"]["task"] == "generated"
        assert evaluation["protocol"]["num_images"] == 400 > evaluation["protocol"]["reference_images"]
        assert not {"ssim", "rmse", "psnr"} & set(values(evaluation))
    assert [comparison["metric"] for comparison in record["comparisons"]] == ["fid", "kid"]
    assert "x_T as drawn" in output
    assert "Wilcoxon" not in output
    assert "equally degraded" not in output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{study}/2", r"{study}/2: failed \(RuntimeError: boom\); only a finished trial can be used"),
        ("{study}/3", "{study}/3: has not finished"),
        ("{study}/4", "{study}/4: no such trial; there are 0, 1, 2, 3"),
        ("nowhere", r"nowhere: no such run; allowed: STUDY/NUMBER .*there are: {study}\), an MLflow run id"),
        ("{study}/x", "{study}/x: no such run"),
        ("{home}/data", r"config.yaml: no such file"),
        ("{home}/space.yaml", r"space.yaml: not the config.yaml of a trial: .*unknown section"),
    ],
)
def test_evaluate_name_of_no_finished_trial_is_refused(finished: Finished, evaluate, name: str, message: str):
    places = {"study": finished.study, "home": str(finished.home)}
    with pytest.raises(ValueError, match=message.format(**places)):
        evaluate(name.format(**places), home=finished.home)


def test_evaluate_home_without_restorers_is_refused_before_data(finished: Finished, evaluate, tmp_path: Path):
    file = finished.config_file(tmp_path / "trial")
    with pytest.raises(ValueError, match=r"holds no restorers. Name the home of this trial"):
        evaluate(file, home=tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name either RUNs, or pictures with --images"),
        (["a", "--images", "b"], "name either RUNs, or pictures with --images"),
        (["--images", "b"], "--reference: required"),
        (["--images", "b", "--reference", "digits", "--num-images", "5"], "all pictures of --images are judged"),
        (["--images", "b", "--reference", "digits", "--tracking-uri", "x"], "--tracking-uri: has no effect with"),
        (["a", "--resize", "bicubic", "--image-size", "8"], "--image-size, --resize: has no effect without"),
        (["a", "--json", "/"], "--output /: must be a file"),
        (["a", "--json", "nowhere/at/all"], "--output nowhere/at/all: must be a file"),
        (["--images", "b", "--reference", "digitz"], "unknown dataset 'digitz'"),
        (["--images", "b", "--reference", "digits"], "no such directory"),
        (["--images", "b", "--reference", "digits", "--extractor", "nose"], "extractor = 'nose'"),
    ],
)
def test_evaluate_contradicting_flags_are_refused(evaluate, tmp_path: Path, arguments: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        evaluate(*arguments, home=tmp_path)


def test_evaluate_missing_device_is_refused(evaluate, finished: Finished):
    with pytest.raises(ValueError, match="--device abacus: allowed: cpu, cuda"):
        evaluate(finished.study, "--device", "abacus", home=finished.home)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="--device cuda: this machine has no CUDA device"):
            evaluate(finished.study, "--device", "cuda", home=finished.home)


def test_evaluate_table_shows_every_figure_at_any_width(finished: Finished, evaluate):
    wide, _ = evaluate(f"{finished.study}/0", home=finished.home, width=250)
    figures = sorted(FIGURE.findall(wide))
    assert len(figures) >= 4 * 7
    assert len([line for line in wide.splitlines() if line.startswith(" degraded")]) == 1
    for width in (80, 120, 160):
        narrow, _ = evaluate(f"{finished.study}/0", home=finished.home, width=width)
        assert sorted(FIGURE.findall(narrow)) == figures
        assert max(map(len, narrow.splitlines())) <= width


def test_evaluate_markdown_has_the_same_figures(finished: Finished, evaluate):
    wide, _ = evaluate(f"{finished.study}/0", home=finished.home, width=250)
    markdown, _ = evaluate(f"{finished.study}/0", "--markdown", home=finished.home)
    assert sorted(FIGURE.findall(markdown)) == sorted(FIGURE.findall(wide))
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(SETS)
    assert len({row.count("|") for row in rows}) == 1


def test_evaluate_few_images_are_noted(finished: Finished, evaluate):
    enough, _ = evaluate(f"{finished.study}/0", home=finished.home)
    few, _ = evaluate(f"{finished.study}/0", "--num-images", 255, home=finished.home)
    assert "4 d" not in enough
    assert "N = 255 < 4 d = 256" in few


@pytest.fixture
def pictures(finished: Finished, tmp_path: Path) -> Path:
    """Write the validation split as PNG files in another order, and return their folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(finished.dataset.split("validation").images.flip(0)):
        Image.fromarray(image[0].numpy()).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("as_array", [False, True])
def test_evaluate_pictures_of_the_split_itself_have_no_distance(finished, evaluate, pictures, tmp_path, as_array):
    file = tmp_path / "images.safetensors"
    save_file({"images": finished.dataset.split("validation").images}, file)
    images = file if as_array else pictures
    output, record = evaluate("--images", images, "--reference", "digits", home=finished.home)
    (evaluation,) = record["evaluations"]
    found = values(evaluation, "images")
    assert found["fid"] == pytest.approx(0, abs=1e-6)
    assert found["mind"] == pytest.approx(0, abs=1e-9)
    assert found["precision"] == found["recall"] == 1
    assert not {"ssim", "rmse", "psnr"} & set(found)
    assert evaluation["protocol"]["task"] == "generated"
    assert evaluation["protocol"]["num_images"] == len(finished.dataset.split("validation").images)
    assert "NFE" not in output


def test_evaluate_pictures_are_judged_against_the_named_split(finished: Finished, evaluate, pictures: Path):
    by_split = {}
    for split in ("validation", "test"):
        _, record = evaluate("--images", pictures, "--reference", "digits", "--split", split, home=finished.home)
        assert record["evaluations"][0]["protocol"]["split"] == split
        by_split[split] = values(record["evaluations"][0], "images")["mind"]
    assert by_split["validation"] < 1e-9 < by_split["test"]


def test_evaluate_pictures_are_resized_only_with_the_flag(finished: Finished, evaluate, tmp_path: Path):
    folder = tmp_path / "large"
    folder.mkdir()
    for i, image in enumerate(finished.dataset.split("validation").images[:8]):
        Image.fromarray(image[0].numpy()).resize((32, 32), Image.Resampling.NEAREST).convert("RGB").save(
            folder / f"{i}.png"
        )
    flags = ["--images", folder, "--reference", "digits", "--image-size", 16]
    with pytest.raises(ValueError, match="32 x 32 pixels, not 16 x 16"):
        evaluate(*flags, home=finished.home)
    _, record = evaluate(*flags, "--resize", "bilinear", home=finished.home)
    assert record["evaluations"][0]["protocol"]["num_images"] == 8
    assert record["evaluations"][0]["protocol"]["image_shape"] == [1, 16, 16]


def test_evaluate_unfit_pictures_are_refused(finished: Finished, evaluate, tmp_path: Path):
    def refused(folder: str, size: tuple[int, int], count: int, message: str) -> None:
        (tmp_path / folder).mkdir()
        for i in range(count):
            Image.new("L", size).save(tmp_path / folder / f"{i}.png")
        with pytest.raises(ValueError, match=message):
            evaluate("--images", tmp_path / folder, "--reference", "digits", home=finished.home)

    refused("empty", (16, 16), 0, "no images there")
    refused("single", (16, 16), 1, "1 image there")
    refused("few", (16, 16), 3, "few: .*at least")
    refused("oblong", (24, 16), 3, "24 x 16 pixels; datasets are square")


def test_evaluate_pictures_of_dataset_without_judge_need_an_extractor(
    evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delitem(JUDGES, "digits")
    with pytest.raises(ValueError, match="--extractor: no judge ships for 'digits'"):
        evaluate("--images", tmp_path, "--reference", "digits", home=tmp_path)


def _config(file: Path) -> TrialConfig:
    return parse_trial(yaml.safe_load(file.read_text()))

"""The config.yaml of a trial, which `coldtune evaluate` reads. It may come from elsewhere."""

from __future__ import annotations

from bad_row import Row, command, config, fifo, folder, link, with_mode

BLUR = (
    "degradation: {kind: blur, steps: 20, kernel_size: 7, padding: circular, sigma: {schedule: constant, start: 1}}\n"
)
FILE = "{dir}/config.yaml"

ROWS: list[Row] = [
    config("config-empty", "", [FILE, "mapping"]),
    config("config-list", "[1, 2]\n", [FILE, "mapping"]),
    config("config-text", "hello\n", [FILE, "mapping"]),
    config("config-null", "null\n", [FILE, "mapping"]),
    config("config-folder", folder, [FILE]),
    config("config-pipe", fifo, [FILE, "regular file"]),
    config("config-zero-device", link("/dev/zero"), [FILE, "regular file"]),
    config("config-link-to-nothing", link("nowhere"), [FILE]),
    config("config-unreadable", with_mode(0, BLUR), [FILE, "permission"], needs_user=True),
    config("config-latin1", b"# caf\xe9\n" + BLUR.encode(), [FILE, "UTF-8", "byte 5"]),
    config("config-binary", bytes(range(256)) * 10, [FILE, "UTF-8"]),
    config("config-image", b"\x89PNG\r\n\x1a\n" + bytes(200), [FILE, "UTF-8"]),
    config("config-python", "data: !!python/object/apply:os.system ['touch hacked']\n" + BLUR, [FILE, "python/object"]),
    config("config-deep", "x: " + "[" * 5000 + "]" * 5000, [FILE, "levels"]),
    config("config-bomb", "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30)), [FILE, "values"]),
    config("config-duplicate", BLUR + BLUR, [FILE, "degradation", "line 2", "line 1"]),
    config("config-recursive", "degradation: &a {kind: *a}\n", [FILE, "itself"]),
    config("config-large", "a: b\n" * 500_000, [FILE, "bytes"]),
    config("config-unknown-section", BLUR + "trainig: {}\n", [FILE, "trainig", "training"]),
    config("config-no-degradation", "training: {steps: 5}\n", [FILE, "degradation", "required"]),
    config("config-section-null", BLUR + "training: null\n", [FILE, "training", "mapping"]),
    config("config-section-text", BLUR + "protocol: digits\n", [FILE, "protocol = 'digits'", "mapping"]),
    config("config-steps-bool", BLUR + "training: {steps: true}\n", [FILE, "training.steps = True", "integer"]),
    config("config-steps-huge", BLUR + "training: {steps: 999999999999999999}\n", [FILE, "training.steps"]),
    config("config-two-faults", BLUR + "training: {steps: 0}\nsampler: {eta: 2}\n",
           [FILE, "training.steps = 0", "sampler.eta = 2"]),
    command("config-folder-without", "evaluate {dir}", says=["{dir}", "config.yaml"]),
]  # fmt: skip
